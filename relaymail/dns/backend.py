"""dnspython's I/O on a Twisted reactor (:mod:`dns.asyncbackend`).

dnspython takes every :class:`Exception` of a query for "this server failed, ask the next", Twisted's
:class:`~twisted.internet.defer.CancelledError` included: a cancelled lookup would go on asking. So
cancellation leaves from here as :class:`Abandoned`, which is no :class:`Exception` and passes through in
one step.
"""
# ruff: noqa: ASYNC109 - the signatures are dnspython's

from __future__ import annotations

import socket
from collections import deque
from typing import Any, Generic, TypeVar

import dns.exception
from dns import _asyncbackend as asyncbackend  # dns.asyncbackend, which does not export them to type checkers
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

T = TypeVar("T")

LARGEST_DATAGRAM = 65535
QUEUED_DATAGRAMS = 16
"""Datagrams kept until dnspython asks for them; more are dropped, as the kernel would."""
QUEUED_BYTES = 65537
"""Bytes of a TCP answer kept before reading pauses: the largest message with its length (RFC 1035 4.2.2)."""


class Abandoned(BaseException):
    """The caller gave the lookup up. Caught in :mod:`relaymail.dns.resolver`; never leaves this package."""


async def within(seconds: float | None, waiting: Deferred[T], clock: Any) -> T:
    """Wait at most ``seconds`` (``None``: without end).

    :raises dns.exception.Timeout: the time is over.
    :raises Abandoned: the wait was cancelled.
    """
    if seconds is not None:
        waiting.addTimeout(seconds, clock)
    try:
        return await waiting
    except DeferredTimeout:
        raise dns.exception.Timeout from None
    except CancelledError:
        raise Abandoned from None


class _Arrivals(Generic[T]):
    """What has arrived, for one reader. An error is told when all before it was read, and from then on."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._items: deque[T] = deque()
        self._error: OSError | EOFError | None = None
        self._reader: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        self._items.append(item)
        self._wake()

    def put_back(self, item: T) -> None:
        self._items.appendleft(item)

    def fail(self, error: OSError | EOFError) -> None:
        self._error = error
        self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.callback(None)

    async def get(self, timeout: float | None) -> T:
        if not self._items and self._error is None:
            self._reader = Deferred(self._forget_reader)
            await within(timeout, self._reader, self._clock)
        if self._items:
            return self._items.popleft()
        assert self._error is not None
        raise self._error

    def _forget_reader(self, _: Deferred[None]) -> None:
        self._reader = None


class _UDPProtocol(DatagramProtocol):
    noisy = False

    def __init__(self, arrivals: _Arrivals[bytes]) -> None:
        self._arrivals = arrivals

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if len(self._arrivals) < QUEUED_DATAGRAMS:
            self._arrivals.put(datagram)

    def connectionRefused(self) -> None:
        self._arrivals.fail(ConnectionRefusedError("nothing listens there"))

    def stopProtocol(self) -> None:
        # The epoll reactor closes a socket that has an error pending: ECONNREFUSED and its kin arrive here
        self._arrivals.fail(OSError("the socket was closed"))


class DatagramSocket(asyncbackend.DatagramSocket):
    """A UDP socket connected to one server: the kernel drops what others send, and tells of a closed port."""

    def __init__(
        self, family: int, reactor: Any, source: tuple[str, int], destination: tuple[str, int]
    ) -> None:
        super().__init__(family, socket.SOCK_DGRAM)
        self._arrivals: _Arrivals[bytes] = _Arrivals(reactor)
        self._peer: Any = destination
        self._port = reactor.listenUDP(
            source[1], _UDPProtocol(self._arrivals), interface=source[0], maxPacketSize=LARGEST_DATAGRAM
        )
        try:
            self._port.connect(*destination)
        except BaseException:
            self._port.stopListening()
            raise

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        """Send one datagram to the server connected to, whose low-level address is ``destination``."""
        self._peer = destination
        self._port.write(what)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        """The next datagram, and the server's address."""
        return await self._arrivals.get(timeout), self._peer

    async def close(self) -> None:
        """Close the socket; the reactor does it in its next turn."""
        self._port.stopListening()

    async def getpeername(self) -> Any:
        """The server's address."""
        return self._peer

    async def getsockname(self) -> tuple[str, int]:
        """Our own address and port."""
        host = self._port.getHost()
        return host.host, host.port


class _TCPProtocol(Protocol):
    def __init__(self, clock: Any) -> None:
        self.arrivals: _Arrivals[bytes] = _Arrivals(clock)
        self._waiting = 0
        self._paused = False

    def dataReceived(self, data: bytes) -> None:
        self.arrivals.put(data)
        self._waiting += len(data)
        if self._waiting > QUEUED_BYTES and not self._paused:
            self._paused = True
            self._flow().pauseProducing()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.arrivals.fail(EOFError("the server closed the connection"))

    def taken(self, count: int) -> None:
        self._waiting -= count
        if self._paused and self._waiting <= QUEUED_BYTES:
            self._paused = False
            self._flow().resumeProducing()

    def _flow(self) -> Any:
        return self.transport


class StreamSocket(asyncbackend.StreamSocket):
    """A TCP connection to one server (RFC 7766)."""

    def __init__(self, family: int, protocol: _TCPProtocol) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._protocol = protocol
        assert protocol.transport is not None
        self._transport: Any = protocol.transport

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        """Send ``what``; the transport keeps it until the peer takes it."""
        self._transport.write(what)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        """1 to ``size`` bytes.

        :raises EOFError: the server has closed.
        """
        data = await self._protocol.arrivals.get(timeout)
        if len(data) > size:
            self._protocol.arrivals.put_back(data[size:])
            data = data[:size]
        self._protocol.taken(len(data))
        return data

    async def close(self) -> None:
        """Drop the connection: there is nothing more to say to the server."""
        self._transport.abortConnection()

    async def getpeername(self) -> tuple[str, int]:
        """The server's address and port."""
        peer = self._transport.getPeer()
        return peer.host, peer.port

    async def getsockname(self) -> tuple[str, int]:
        """Our own address and port."""
        host = self._transport.getHost()
        return host.host, host.port


class Backend(asyncbackend.Backend):
    """Sockets and timers of one reactor."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def name(self) -> str:
        """What dnspython calls this."""
        return "twisted"

    def datagram_connection_required(self) -> bool:
        """Have dnspython tell the destination when it makes a UDP socket."""
        return True

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: tuple[str, int] | None = None,
        destination: tuple[str, int] | None = None,
        timeout: float | None = None,
        ssl_context: object = None,
        server_hostname: str | None = None,
    ) -> asyncbackend.Socket:
        """Open a socket of type ``socktype`` to ``destination``.

        :raises OSError: it cannot be reached.
        :raises dns.exception.Timeout: it did not take the TCP connection within ``timeout`` seconds.
        """
        # dnspython names no destination where datagram_connection_required() is false, and TLS is for servers
        # of another kind than the resolver's
        assert destination is not None
        assert ssl_context is None
        if socktype == socket.SOCK_DGRAM:
            anywhere = ("0.0.0.0" if af == socket.AF_INET else "::", 0)  # noqa: S104 - connected at once
            return DatagramSocket(af, self._reactor, source or anywhere, destination)
        endpoint_type: Any = TCP4ClientEndpoint if af == socket.AF_INET else TCP6ClientEndpoint
        endpoint = endpoint_type(self._reactor, *destination, timeout=timeout, bindAddress=source)
        return StreamSocket(af, await self._connect(endpoint))

    async def _connect(self, endpoint: Any) -> _TCPProtocol:
        factory = Factory.forProtocol(lambda: _TCPProtocol(self._reactor))
        factory.noisy = False
        try:
            protocol: _TCPProtocol = await endpoint.connect(factory)
        except ConnectTimeout:
            raise dns.exception.Timeout from None
        except (CancelledError, ConnectingCancelledError):
            raise Abandoned from None
        except ConnectError as error:
            raise OSError(error.osError, "cannot connect") from error
        return protocol

    async def sleep(self, interval: float) -> None:
        """Wait ``interval`` seconds."""
        try:
            await within(interval, Deferred(), self._reactor)
        except dns.exception.Timeout:
            return
