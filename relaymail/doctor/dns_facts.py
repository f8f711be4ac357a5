"""What DNS says of this host, and what must be published: shared by the checks of DNS."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

from relaymail.dns import DNSFailure
from relaymail.doctor.check import Finding, Skipped, failed
from relaymail.doctor.context import Context

Address = IPv4Address | IPv6Address


Look = Callable[[Context], Awaitable[Finding]]


def over_dns(look: Look) -> Look:
    """``look``, told apart where DNS fails: for everything, which another check is about, or for one name."""

    async def looked(context: Context) -> Finding:
        try:
            return await look(context)
        except DNSFailure as error:
            if not await context.once("DNS works", lambda: dns_works(context)):
                raise Skipped("DNS gives no answers, see check.dns.resolver") from None
            kind = {"timeout": "nobody answers for it", "network": "nobody answers for it"}.get(error.kind)
            return failed(
                f"DNS cannot answer for {error.name} ({error.rdtype})",
                kind or f"{error.kind.upper()}: its name servers or its DNSSEC signatures are broken",
            )

    return looked


async def dns_works(context: Context) -> bool:
    """Whether DNS answers for the domain it is tried with."""
    try:
        await context.lookup(context.settings.health_check.dns_test_domain, "MX")
    except DNSFailure:
        return False
    return True


async def server_addresses(context: Context) -> list[str]:
    """The addresses that DNS has for ``Smtp:ServerName``; an address is its own.

    :raises DNSFailure: DNS did not say.
    """
    name = context.settings.smtp.server_name
    try:
        return [str(ip_address(name))]
    except ValueError:
        found: list[str] = await context.once("server addresses", lambda: context.addresses(name))
        return found


async def our_addresses(context: Context) -> set[Address]:
    """Addresses that are this host's: those of its name, and those this machine sends from.

    :raises DNSFailure: DNS did not say.
    """
    named = await server_addresses(context)
    local = await context.aside(sending_addresses)
    return {ip_address(address) for address in (*named, *local)}


def sending_addresses() -> list[str]:
    """The addresses this machine's connections to elsewhere come from, before any NAT. Nothing is sent."""
    found = []
    for family, elsewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                found.append(str(probe.getsockname()[0]).partition("%")[0])
        except OSError:
            continue
    return found


def public(address: Address) -> bool:
    """Whether others could reach it."""
    return address.is_global


def record(name: str, rdtype: str, text: str) -> str:
    """A line of a zone file."""
    return f"{name}. 3600 IN {rdtype} {text}"


def txt(name: str, text: str) -> str:
    """A TXT record as a line of a zone file, in strings of at most 255 octets (RFC 1035 5.1)."""
    strings = [text[start : start + 255] for start in range(0, len(text), 255)]
    return record(name, "TXT", " ".join(f'"{string}"' for string in strings))
