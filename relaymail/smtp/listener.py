"""Listening sockets, and the factory that makes a session of each connection."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from relaymail.smtp import reply
from relaymail.smtp.gate import ProxyGate
from relaymail.smtp.reply import Reply
from relaymail.smtp.server import ESMTPServer
from relaymail.smtp.session import client_of
from relaymail.smtp.surroundings import Surroundings

log = Logger()

BACKLOG: Final = 1024
"""Connections the kernel holds until we accept them."""
CROWDED: Final = 0.8
RELAXED: Final = 0.7
"""Shares of the connections allowed that must be used, and free again, for idle clients to have less time."""


class ListenError(Exception):
    """A listener could not be opened; the text says which and why."""


class Sessions:
    """All live sessions of the process, over all listeners."""

    def __init__(self, limit: int) -> None:
        self.crowded = False
        self._live: set[ESMTPServer] = set()
        self._limit = limit
        self._draining = False
        self._drained: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._live)

    def admission(self) -> Reply | None:
        """Why a new connection is refused, or ``None``."""
        if self._draining:
            return reply.SHUTTING_DOWN
        return reply.TOO_MANY_CONNECTIONS if len(self._live) >= self._limit else None

    def began(self, session: ESMTPServer) -> None:
        """Count a session in."""
        if not self.crowded and len(self._live) >= CROWDED * self._limit:
            self.crowded = True
            for other in self._live:
                other.hurry()
        self._live.add(session)

    def ended(self, session: ESMTPServer) -> None:
        """Count a session out."""
        self._live.discard(session)
        if self.crowded and len(self._live) < RELAXED * self._limit:
            self.crowded = False
        if self._drained is not None and not self._live:
            drained, self._drained = self._drained, None
            drained.callback(None)

    async def drain(self, limit: float, reactor: Any) -> None:
        """Tell every session to come to its end, and cut those that have not after ``limit`` seconds."""
        self._draining = True
        for session in list(self._live):
            session.drain()
        if self._live:
            self._drained = Deferred()
            timer = reactor.callLater(limit, self._cut)
            await self._drained
            if timer.active():
                timer.cancel()

    def cut(self) -> None:
        """Cut every session now."""
        self._cut()

    def _cut(self) -> None:
        if self._live:
            log.warn("Cutting {count} sessions that did not end in time", count=len(self._live))
        for session in list(self._live):
            session.abort()


class ESMTPFactory(Factory):
    """Makes a session of each connection to one listener.

    ``ready`` says why nothing can be accepted at the moment (no database), or ``None``.
    """

    noisy = False

    def __init__(
        self, surroundings: Surroundings, sessions: Sessions, ready: Callable[[], Reply | None]
    ) -> None:
        self._surroundings = surroundings
        self._sessions = sessions
        self._ready = ready

    def buildProtocol(self, addr: IAddress | None) -> ESMTPServer:
        """A new session; one that is refused says so and closes."""
        opening = self._sessions.admission() or self._ready()
        session = ESMTPServer(self._surroundings, opening, self._sessions, client_of(addr))
        self._sessions.began(session)
        return session


def bind(name: str, addresses: Sequence[str], port: int) -> list[socket.socket]:
    """Listening sockets for ``port`` on each address; nothing is accepted yet.

    Raises :exc:`ListenError` and leaves nothing open then.
    """
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            listening = _bind(name, address, port)
            if listening is not None:
                sockets.append(listening)
        if not sockets:
            raise ListenError(f"{name}: none of the addresses {', '.join(addresses)} is on this machine")
    except ListenError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def adopt(
    sockets: Sequence[socket.socket], factory: ESMTPFactory, surroundings: Surroundings, reactor: Any
) -> list[IListeningPort]:
    """Begin to accept connections on bound sockets."""
    wrapped = _outermost(factory, surroundings, reactor)
    ports: list[IListeningPort] = []
    for listening in sockets:
        with listening:
            ports.append(reactor.adoptStreamPort(listening.fileno(), listening.family, wrapped))
    return ports


async def open_endpoint(
    factory: ESMTPFactory, surroundings: Surroundings, description: str, reactor: Any
) -> IListeningPort:
    """Listen on a Twisted endpoint (``systemd:domain=INET:name=submission``). Raises :exc:`ListenError`."""
    try:
        endpoint = serverFromString(reactor, description)
        port: IListeningPort = await endpoint.listen(_outermost(factory, surroundings, reactor))
    except Exception as error:
        listener, why = surroundings.policy.listener, str(error) or type(error).__name__
        raise ListenError(f"{listener}: cannot listen on {description!r}: {why}") from error
    return port


def _outermost(factory: ESMTPFactory, surroundings: Surroundings, reactor: Any) -> Any:
    """What the port talks to: sessions, in TLS if it is implicit, behind a gate if there are proxies."""
    policy = surroundings.policy
    outermost: Any = factory
    if policy.implicit_tls:
        tls: Any = surroundings.tls
        outermost = TLSMemoryBIOFactory(tls, False, cast(IProtocolFactory, factory))
        outermost.noisy = False
    if policy.proxy_networks:
        outermost = ProxyGate(outermost, policy.proxy_networks, policy.timeouts.proxy_header, reactor)
    return outermost


def _bind(name: str, address: str, port: int) -> socket.socket | None:
    """A listening socket, or ``None`` where the machine has no IPv6."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening: socket.socket | None = None
    try:
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # 0.0.0.0 is a listener of its own
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        if listening is not None:
            listening.close()
        if family == socket.AF_INET6 and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            return None
        raise ListenError(f"{name}: cannot listen on {address} port {port}: {why_not(error)}") from error
    return listening


def why_not(error: OSError) -> str:
    """Why a port could not be had, and what to do."""
    match error.errno:
        case errno.EADDRINUSE:
            return "another program has the port; stop it or choose another port"
        case errno.EACCES:
            return (
                "not allowed; a port under 1024 needs CAP_NET_BIND_SERVICE, a socket from systemd,"
                " or another port"
            )
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; choose one that `ip address` shows"
        case _:
            return error.strerror or str(error)
