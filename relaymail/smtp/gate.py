"""The gate in front of a listener: a load balancer of ours says there who its client is.

The greeting must not leave, and no limit be applied, before that is known; so the session is made behind the
header, with the client's address.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.smtp.policy import is_in
from relaymail.smtp.proxy import ProxyError, parse_header
from relaymail.smtp.session import client_of

log = Logger()


class ProxyGate(Factory):
    """Wants a PROXY header from clients in ``networks``, and takes all others as they are.

    :param inner: makes the protocol behind the header, TLS included.
    :param limit: seconds to wait for the header.
    """

    noisy = False

    def __init__(
        self, inner: Any, networks: tuple[IPv4Network | IPv6Network, ...], limit: float, reactor: Any
    ) -> None:
        self._inner = inner
        self._networks = networks
        self._limit = limit
        self._reactor = reactor

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A protocol that waits for the header, or the inner one."""
        if is_in(self._networks, client_of(addr)[0]):
            return _Waiting(self._inner, self._limit, self._reactor)
        return self._inner.buildProtocol(addr)

    def doStart(self) -> None:
        """The port opens."""
        super().doStart()  # type: ignore[no-untyped-call]
        self._inner.doStart()

    def doStop(self) -> None:
        """The port closes."""
        self._inner.doStop()
        super().doStop()  # type: ignore[no-untyped-call]


class _Waiting(Protocol):
    """Holds a connection until its header is there."""

    transport: Any

    def __init__(self, inner: Any, limit: float, reactor: Any) -> None:
        self._inner = inner
        self._limit = limit
        self._reactor = reactor
        self._received = b""
        self._timer: Any = None

    def connectionMade(self) -> None:
        self._timer = self._reactor.callLater(self._limit, self._refuse, "no PROXY header in time")

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        try:
            header = parse_header(self._received)
        except ProxyError as error:
            self._refuse(str(error))
            return
        if header is None:
            return
        self._end()
        address = self.transport.getPeer()
        if header.client is not None:
            kind = IPv6Address if ":" in header.client[0] else IPv4Address
            address = kind("TCP", *header.client)
        protocol = self._inner.buildProtocol(address)
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        rest = self._received[header.length :]
        if rest:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end()

    def _refuse(self, why: str) -> None:
        log.warn("Refused {proxy}: {why}", proxy=client_of(self.transport.getPeer())[0], why=why)
        self.transport.abortConnection()

    def _end(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
