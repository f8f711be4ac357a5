"""The health port."""

from __future__ import annotations

import errno
import socket
from importlib.metadata import version
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Site

from relaymail.health.monitor import HealthMonitor
from relaymail.health.pages import pages
from relaymail.health.resource import HealthRequest, HealthResource
from relaymail.health.status import StatusDesk
from relaymail.telemetry import Metrics

IDLE = 30.0
"""Seconds after which an idle connection is closed."""
NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPFNOSUPPORT})
PORT_TRIES = 10
"""How often another free port is looked for, if one address family has it and the other does not."""


class _HealthChannel(HTTPChannel):
    """A connection, HTTP/1.1."""

    site: _HealthSite

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.site.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.channels.discard(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class _HealthSite(Site):
    """Health checks come every few seconds for ever: they are not logged."""

    noisy = False
    protocol = _HealthChannel  # type: ignore[assignment]

    def __init__(self, resource: HealthResource) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, HealthRequest, parsePOSTFormSubmission=False, timeout=IDLE
        )
        self.channels: set[_HealthChannel] = set()

    def log(self, request: Any) -> None:
        """Log nothing."""


class HealthServer:
    """Serves a monitor's reports, the status page and the metrics over plain HTTP.

    :param host: ``localhost``, an IP address, or ``None`` for all interfaces; IPv6 takes part where there is
        any.
    :param port: 0 is any free one.
    :param desk: knows what the status page shows; without it there is none.
    :param metrics: for ``/metrics``; without them there is none.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        host: str | None,
        port: int,
        *,
        reactor: Any,
        desk: StatusDesk | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        found = pages(monitor, desk, metrics, version=version("relaymail"), reactor=reactor)
        self._site = _HealthSite(HealthResource(found))
        self._host = host
        self._port = port
        self._reactor = reactor
        self._ports: list[Any] = []

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: addresses and ports."""
        hosts = [port.getHost() for port in self._ports]
        return [(host.host, host.port) for host in hosts]

    def start(self) -> None:
        """Listen.

        :raises CannotListenError: the port is taken, or not ours to take.
        """
        for tries_left in reversed(range(PORT_TRIES)):
            try:
                self._listen()
            except CannotListenError as error:
                self._close()
                if self._port != 0 or not tries_left or _errno(error) != errno.EADDRINUSE:
                    raise
            else:
                return

    async def stop(self) -> None:
        """Close the port and the connections to it."""
        for closing in self._close():
            await closing
        for channel in list(self._site.channels):
            transport: Any = channel.transport
            transport.abortConnection()

    def _close(self) -> list[Any]:
        ports, self._ports = self._ports, []
        return [closing for port in ports if (closing := port.stopListening()) is not None]

    def _listen(self) -> None:
        number = self._port
        for interface, needed in _interfaces(self._host):
            if interface == "0.0.0.0" and self._takes_both():  # noqa: S104 - it was asked for
                continue
            try:
                port = self._reactor.listenTCP(number, self._site, interface=interface)
            except CannotListenError as error:
                if needed or _errno(error) not in NO_IPV6:
                    raise
                continue
            self._ports.append(port)
            number = port.getHost().port

    def _takes_both(self) -> bool:
        """Whether the ``::`` socket we have takes IPv4 as well (RFC 3493 5.3)."""
        return any(
            port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0 for port in self._ports
        )


def _interfaces(host: str | None) -> list[tuple[str, bool]]:
    """Addresses to listen on, and whether each has to be there."""
    if host is None:
        return [("::", False), ("0.0.0.0", True)]  # noqa: S104 - it was asked for
    if host == "localhost":
        return [("127.0.0.1", True), ("::1", False)]
    return [(host, True)]


def _errno(error: CannotListenError) -> int | None:
    number: int | None = getattr(error.socketError, "errno", None)
    return number
