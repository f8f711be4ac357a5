"""Check of the submission port: does it greet."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from relaymail.health.loopback import reachable
from relaymail.health.result import HealthCheck, Result, Status
from relaymail.smtp.policy import Network, is_in
from relaymail.smtp.probe import ProbeRegistry
from relaymail.telemetry.lines import escape

LIMIT = 4.0
"""Seconds for connection and greeting: less than the check has, so that it can say which was missing."""
QUIT_LIMIT = 0.5
"""Seconds the server has to close behind our QUIT; closing first would reset its last reply."""
FORGOTTEN = 10.0
"""Seconds behind a probe's end after which nobody needs to know it: our listener has seen its end by then,
and where somebody else has the port, it never will."""
LONGEST_GREETING = 4096
"""Bytes read of a greeting."""
LONGEST_SHOWN = 100
"""Characters shown of a greeting."""

_EXPECTED = re.compile(rb"220(?:[ -]|$)")

Where = Callable[[], tuple[str, int] | None]
"""Address and port that submission listens on, wildcards allowed; ``None`` while it does not."""


def smtp_check(
    where: Where,
    *,
    probes: ProbeRegistry,
    reactor: Any,
    limit: float = LIMIT,
    proxies: tuple[Network, ...] = (),
) -> HealthCheck:
    """Connects to the submission port as a client would, wants a ``220``, and says ``QUIT``.

    :param where: asked at each run.
    :param probes: told of each probe, so that the engine neither logs nor counts it.
    :param limit: seconds for connection and greeting together.
    :param proxies: networks that the server wants a PROXY header from; a proxy on this machine may be in one.
    """

    async def run() -> Result:
        address = where()
        if address is None:
            return Result(Status.UNHEALTHY, "SMTP server is not listening")
        host, port = reachable(address[0]), address[1]
        server = f"SMTP server on port {port}"
        deadline = reactor.seconds() + limit
        try:
            probe = await _connect(host, port, limit, lambda: _Probe(probes, proxies), reactor)
        except ConnectionRefusedError:
            return Result(Status.UNHEALTHY, f"{server} refused the connection")
        except ConnectTimeout:
            return Result(Status.UNHEALTHY, f"{server} timed out: no connection within {limit:g} s")
        except ConnectError:
            return Result(Status.UNHEALTHY, f"{server} cannot be reached")
        try:
            return await _greeting(probe, server, deadline, limit, reactor)
        finally:
            probe.abort()
            reactor.callLater(FORGOTTEN, probe.forget)

    return HealthCheck("smtp", ("protocol",), run)


async def _connect(
    host: str, port: int, limit: float, new_probe: Callable[[], _Probe], reactor: Any
) -> _Probe:
    factory = Factory.forProtocol(new_probe)
    factory.noisy = False
    endpoint_type: Any = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
    probe: _Probe = await endpoint_type(reactor, host, port, timeout=limit).connect(factory)
    return probe


async def _greeting(probe: _Probe, server: str, deadline: float, limit: float, reactor: Any) -> Result:
    probe.greeting.addTimeout(max(0.0, deadline - reactor.seconds()), reactor)
    try:
        greeting = await probe.greeting
    except DeferredTimeout:
        return Result(Status.UNHEALTHY, f"{server} timed out: no greeting within {limit:g} s")
    if not greeting:
        return Result(Status.UNHEALTHY, f"{server} closed the connection without a greeting")
    expected = _EXPECTED.match(greeting) is not None
    await _quit(probe, reactor)
    if not expected:
        return Result(Status.UNHEALTHY, f"{server} returned unexpected greeting: {_shown(greeting)}")
    return Result(Status.HEALTHY, f"SMTP server accepting connections on {server.rpartition(' on ')[2]}")


async def _quit(probe: _Probe, reactor: Any) -> None:
    probe.say(b"QUIT\r\n")
    probe.gone.addTimeout(QUIT_LIMIT, reactor)
    try:
        await probe.gone
    except DeferredTimeout:
        # It greeted, which is what was asked
        return


def _shown(greeting: bytes) -> str:
    text = escape(greeting.decode("utf-8", "replace"))
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


class _Probe(Protocol):
    """Waits for a greeting, all lines of it (RFC 5321 4.2.1)."""

    def __init__(self, probes: ProbeRegistry, proxies: tuple[Network, ...]) -> None:
        self._probes = probes
        self._proxies = proxies
        self._received = b""
        self.greeting: Deferred[bytes] = Deferred()
        """Its first line, without the line end; empty where the connection was closed before."""
        self.gone: Deferred[None] = Deferred()
        """The server has closed the connection."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        host = transport.getHost()
        self._client = (host.host, host.port)
        self._probes.add(self._client)
        if is_in(self._proxies, host.host):
            self.say(b"PROXY UNKNOWN\r\n")

    def dataReceived(self, data: bytes) -> None:
        if self.greeting.called:
            return
        self._received += data[:LONGEST_GREETING]
        complete = self._received.split(b"\n")[:-1]
        last = next((line for line in complete if line[3:4] != b"-"), None)
        if last is not None or len(self._received) >= LONGEST_GREETING:
            self.greeting.callback((complete or [self._received])[0].rstrip(b"\r"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.greeting.called:
            self.greeting.callback(self._received.split(b"\n")[0].rstrip(b"\r"))
        if not self.gone.called:
            self.gone.callback(None)

    def forget(self) -> None:
        self._probes.discard(self._client)

    def say(self, command: bytes) -> None:
        transport: Any = self.transport
        transport.write(command)

    def abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()
