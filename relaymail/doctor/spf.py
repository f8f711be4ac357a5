"""Whether an SPF record lets an address send (RFC 7208), with the mechanisms that are in use."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Literal, Protocol

Address = IPv4Address | IPv6Address
Verdict = Literal["pass", "fail", "softfail", "neutral", "none"]
"""Macros, ``exists`` and ``ptr`` are taken for no match: only a real message could tell."""

BEGIN = "v=spf1"
LOOKUPS = 10
"""Mechanisms that need DNS (RFC 7208 4.6.4); more are a permanent error at the receiver."""

_QUALIFIERS: dict[str, Verdict] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


class Names(Protocol):
    """The look-ups that are needed; :class:`~relaymail.doctor.context.Context` has them."""

    async def lookup(self, name: str, rdtype: str) -> list[Any]:
        """Records, none where there are none."""

    async def addresses(self, name: str) -> list[str]:
        """A and AAAA."""

    async def texts(self, name: str, begin: str) -> list[str]:
        """TXT records that begin so."""


class PermanentError(Exception):
    """Receivers treat the record as broken; the text says why."""


def records_of(texts: Sequence[str]) -> list[str]:
    """Those among TXT records that are SPF records (RFC 7208 4.5)."""
    return [text for text in texts if text.lower() == BEGIN or text.lower().startswith(f"{BEGIN} ")]


class Evaluation:
    """Evaluates for one domain; counts the look-ups of all records it comes to.

    Its methods raise :exc:`~relaymail.dns.DNSFailure` and :exc:`PermanentError`.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self.lookups = 0

    async def check(self, domain: str, address: Address) -> Verdict:
        """What the record of ``domain`` says of ``address``."""
        found = records_of(await self._names.texts(domain, BEGIN))
        if not found:
            return "none"
        if len(found) > 1:
            raise PermanentError(f"{domain} has {len(found)} SPF records, only one is allowed")
        return await self._record(domain, found[0], address)

    async def _record(self, domain: str, record: str, address: Address) -> Verdict:
        redirect = ""
        for term in record.split()[1:]:
            name, equals, value = term.partition("=")
            if equals and name.isalnum():
                redirect = value if name.lower() == "redirect" else redirect
                continue
            qualifier = _QUALIFIERS.get(term[0])
            mechanism = term[1:] if qualifier else term
            if await self._matches(domain, mechanism, address):
                return qualifier or "pass"
        if redirect:
            self._count()
            verdict = await self.check(redirect, address)
            if verdict == "none":
                raise PermanentError(f"redirect leads to {redirect}, which has no SPF record")
            return verdict
        return "neutral"

    async def _matches(self, domain: str, mechanism: str, address: Address) -> bool:
        name, _, rest = mechanism.partition(":")
        name, slash, length = name.partition("/") if not rest else (name, "", "")
        match name.lower():
            case "all":
                return True
            case "ip4" | "ip6":
                return _in_network(rest, address, mechanism)
            case "a" | "mx":
                target, slash, length = rest.partition("/") if rest else (domain, slash, length)
                return await self._hosts(name.lower(), target, length, address)
            case "include":
                self._count()
                verdict = await self.check(rest, address)
                if verdict == "none":
                    raise PermanentError(f"include:{rest} has no SPF record")
                return verdict == "pass"
            case "exists" | "ptr":
                self._count()
                return False
            case _:
                raise PermanentError(f"{mechanism!r} is no mechanism of SPF")

    async def _hosts(self, kind: str, target: str, length: str, address: Address) -> bool:
        self._count()
        if "%" in target:
            return False
        names = [target]
        if kind == "mx":
            names = [
                record.exchange.to_text(omit_final_dot=True)
                for record in await self._names.lookup(target, "MX")
            ]
        bits = _bits(length, address)
        for name in names[:LOOKUPS]:
            for text in await self._names.addresses(name):
                other = ip_address(text)
                if other.version == address.version and address in ip_network(
                    f"{other}/{bits}", strict=False
                ):
                    return True
        return False

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > LOOKUPS:
            raise PermanentError(f"it takes more than {LOOKUPS} DNS look-ups, which receivers do not do")


def _in_network(text: str, address: Address, mechanism: str) -> bool:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise PermanentError(f"{mechanism!r} has no IP address") from None
    return address.version == network.version and address in network


def _bits(length: str, address: Address) -> int:
    """``24``, ``24//64`` or ``/64`` (RFC 7208 5.6): the bits for this kind of address."""
    four, _, six = length.partition("//") if not length.startswith("/") else ("", "", length[1:])
    text = four if address.version == 4 else six
    return int(text) if text.isdigit() and int(text) <= address.max_prefixlen else address.max_prefixlen
