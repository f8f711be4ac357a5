"""Connecting to a server by name and port, with the ways it can fail told apart."""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol

from relaymail.doctor.deadline import within
from relaymail.doctor.resolution import Aside

How = Literal["connected", "timeout", "refused", "dns", "socket"]


class Connected(NamedTuple):
    """What came of it."""

    how: How
    why: str = ""
    greeting: str = ""
    """What the server said first, where that was waited for; empty: nothing."""


async def connect(reactor: Any, host: str, port: int, *, limit: float, greeting: float = 0.0) -> Connected:
    """Open a plain TCP connection and close it again.

    :param limit: seconds for resolving the name and connecting.
    :param greeting: seconds to wait for a first line.
    """
    factory: Any = Factory.forProtocol(_Listening)
    factory.noisy = False
    endpoint = HostnameEndpoint(Aside(reactor), host, port, timeout=limit)
    connecting: Deferred[Any] = endpoint.connect(factory)
    try:
        protocol: _Listening = await within(reactor, limit, connecting)
    except (TimeoutError, ConnectTimeout):
        return Connected("timeout", f"no connection within {limit:g} s")
    except ConnectionRefusedError:
        return Connected("refused", "the connection was refused: nothing listens there")
    except (DNSLookupError, ValueError):  # a ValueError: it is no host name
        return Connected("dns", "the host name does not resolve")
    except ConnectError as error:
        return Connected("socket", f"socket error: {_reason(error)}")
    try:
        return Connected("connected", greeting=await protocol.first(greeting, reactor) if greeting else "")
    finally:
        protocol.close()


def _reason(error: ConnectError) -> str:
    number = error.osError
    return os.strerror(number) if isinstance(number, int) else str(number or "no connection")


class _Listening(Protocol):
    """Keeps the first line."""

    transport: Any

    def __init__(self) -> None:
        self._received = b""
        self._told: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._received += data[:1024]
        if b"\n" in self._received or len(self._received) > 1024:
            self._tell()

    def connectionLost(self, reason: object = None) -> None:
        self._tell()

    def _tell(self) -> None:
        if not self._told.called:
            self._told.callback(None)

    async def first(self, limit: float, reactor: Any) -> str:
        """The first line, or nothing if none comes in time."""
        self._told.addTimeout(limit, reactor)
        try:
            await self._told
        except DeferredTimeout:
            return ""
        return self._received.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")

    def close(self) -> None:
        self.transport.abortConnection()
