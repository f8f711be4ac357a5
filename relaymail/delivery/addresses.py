"""Addresses of next hosts: which are ours, which can be reached at all, and which few of many are tried."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest

Address = IPv4Address | IPv6Address


def usable(text: str) -> str | None:
    """An IP address in its one spelling; ``None`` for what is the address of no host.

    An IPv4 address in IPv6's clothes (``::ffff:192.0.2.1``) comes out as IPv4: that is where it leads.

    :raises ValueError: it is no IP address.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return None
    return str(address)


def literal_address(text: str) -> str | None:
    """The address that ``192.0.2.1``, ``[192.0.2.1]``, ``2001:db8::1`` or ``[IPv6:2001:db8::1]`` stands for.

    ``None`` for anything else, and for what is the address of no host.
    """
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    try:
        return None if "%" in inner else usable(inner)
    except ValueError:
        return None


def is_v6(address: str) -> bool:
    """Whether an address in text is IPv6."""
    return ":" in address


def reachable(address: str) -> bool:
    """Whether the kernel knows a way to ``address``. No packet is sent; a few microseconds."""
    family = socket.AF_INET6 if is_v6(address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True


def is_local(address: str) -> bool:
    """Whether ``address`` is one of this machine's: whether a socket can have it. A few microseconds."""
    family = socket.AF_INET6 if is_v6(address) else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class OwnHost:
    """What this host is known by: mail for elsewhere that would come back to it must not go out."""

    names: Collection[str] = ()
    """Names, in lower-case A-labels, under which we take mail at the next hosts' port. None where nothing of
    ours listens there: then a host of our name is another one."""
    listening: Collection[tuple[str, int]] = ()
    """Addresses and ports on which we take mail; ``0.0.0.0`` and ``::`` stand for all of the machine's."""
    local: Callable[[str], bool] = field(default=is_local)

    def has_name(self, name: str) -> bool:
        """Whether ``name`` (lower case, no last dot) is ours."""
        return name in self.names

    def listens_at(self, address: str, port: int) -> bool:
        """Whether who connects to ``address`` and ``port`` would reach us."""
        for interface, our_port in self.listening:
            if port != our_port:
                continue
            if interface == address or (_takes_all(interface, address) and self.local(address)):
                return True
        return False


def _takes_all(interface: str, address: str) -> bool:
    # A socket on "::" takes IPv4 as well, unless told not to
    return interface in ("::", "") or (interface == "0.0.0.0" and not is_v6(address))  # noqa: S104 - compared


def choose(found: Sequence[Sequence[str]], most: int) -> list[list[str]]:
    """Of each host's addresses those to try, at most ``most`` in all, in order.

    ``found`` has the hosts in their order. Each gets one address of either family before any gets a second of
    one, so that neither a family that leads nowhere nor a host with many addresses keeps the others from
    their turn. The families alternate, IPv6 first.
    """
    places = [0] * len(found)
    left = most
    for want in (_families, len):
        for at, addresses in enumerate(found):
            more = min(left, want(addresses) - places[at])
            places[at] += more
            left -= more
    chosen: list[list[str]] = []
    last_v6 = False
    for addresses, count in zip(found, places, strict=True):
        mine = _alternating(addresses, v6_first=not last_v6)[:count]
        if mine:
            last_v6 = is_v6(mine[-1])
        chosen.append(mine)
    return chosen


def _families(addresses: Sequence[str]) -> int:
    return len({is_v6(address) for address in addresses})


def _alternating(addresses: Sequence[str], *, v6_first: bool) -> list[str]:
    one = [address for address in addresses if is_v6(address) == v6_first]
    other = [address for address in addresses if is_v6(address) != v6_first]
    return [address for address in chain.from_iterable(zip_longest(one, other)) if address is not None]
