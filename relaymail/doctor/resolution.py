"""Names of hosts resolved as every program on this machine does, in threads that nobody waits for."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
)
from zope.interface import implementer

from relaymail.doctor.aside import aside


@implementer(IReactorPluggableNameResolver)
class Aside:
    """The reactor, with a resolver whose threads do not hold the process at its end."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.nameResolver = _Resolver(reactor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """The thread goes on, and nobody is told."""


@implementer(IHostnameResolver)
class _Resolver:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[Any] | None = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Called by the endpoint."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def found(results: Any) -> None:
            for family, _, _, _, address in results:
                kind = IPv6Address if family == socket.AF_INET6 else IPv4Address
                resolutionReceiver.addressResolved(kind("TCP", *address[:2]))
            resolutionReceiver.resolutionComplete()

        looking = aside(
            self._reactor, socket.getaddrinfo, hostName, portNumber, socket.AF_UNSPEC, socket.SOCK_STREAM
        )
        looking.addErrback(lambda _: [])
        looking.addCallback(found)
        return resolution
