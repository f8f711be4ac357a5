"""Which DNS servers are asked: those of the settings, or the system's."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

import dns.exception
import dns.resolver
from twisted.internet.threads import deferToThreadPool

DNS_PORT = 53
RESOLV_CONF = "/etc/resolv.conf"
REREAD_INTERVAL = 60.0
"""Seconds after which the system's list is read again: laptops and VPNs change it."""


class Server(NamedTuple):
    """Where a DNS server listens."""

    address: str
    port: int


def parse_server(text: str) -> Server:
    """Read ``address``, ``address:port``, ``[v6]`` or ``[v6]:port``.

    :raises ValueError: it is none of these; the text says what is allowed.
    """
    host, port = text.strip(), str(DNS_PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        if rest:
            port = rest[1:] if rest.startswith(":") else ""
    elif host.count(":") == 1:
        host, port = host.split(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{text!r} is no DNS server: an IP address is needed, or address:port, [v6]:port"
        ) from None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r} is no DNS server: the port must be 1 to 65535")
    return Server(host, int(port))


def read_resolv_conf(path: str = RESOLV_CONF) -> tuple[Server, ...]:
    """The ``nameserver`` lines of resolv.conf(5); without any, the local machine, as it says. Blocks."""
    reader = dns.resolver.Resolver(configure=False)
    try:
        reader.read_resolv_conf(path)
    except (dns.exception.DNSException, OSError, ValueError):
        return (Server("127.0.0.1", DNS_PORT),)
    return tuple(Server(str(address), DNS_PORT) for address in reader.nameservers)


class FixedServers:
    """The servers named in the settings."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = tuple(parse_server(text) for text in servers)

    async def current(self) -> tuple[Server, ...]:
        """The servers, in the order to ask them."""
        return self._servers


class SystemServers:
    """The servers of resolv.conf, read in a thread and again every :data:`REREAD_INTERVAL`."""

    def __init__(self, *, reactor: Any, path: str = RESOLV_CONF) -> None:
        self._reactor = reactor
        self._path = path
        self._servers: tuple[Server, ...] = ()
        self._read_at = float("-inf")

    async def current(self) -> tuple[Server, ...]:
        """The servers, in the order to ask them."""
        if self._reactor.seconds() - self._read_at >= REREAD_INTERVAL:
            reading: Awaitable[tuple[Server, ...]] = deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), read_resolv_conf, self._path
            )
            self._servers = await reading
            self._read_at = self._reactor.seconds()
        return self._servers
