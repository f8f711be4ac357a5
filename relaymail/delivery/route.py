"""Which hosts a message for a domain is given to, in which order, and at which addresses (RFC 5321 5.1).

A route is worked out anew for each try; the resolver's cache makes that cheap. What it ends in is told apart
with care: only what the domain itself says in DNS fails mail for good; anything that is broken on the way, or
in our own settings, defers it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random, SystemRandom
from typing import Final, Literal, TypeVar

from twisted.internet.defer import Deferred, gatherResults

from relaymail.delivery.addresses import OwnHost, choose, literal_address, reachable
from relaymail.delivery.hosts import HostAddresses, addresses_of
from relaymail.dns import MX, DNSFailure, NoRecords, NoSuchDomain, Resolver, exchangers
from relaymail.smtp.address import ascii_domain

T = TypeVar("T")

SMTP_PORT: Final = 25
MOST_ADDRESSES: Final = 5
"""Addresses of one try, all hosts together."""
AT_ONCE: Final = 10
"""Hosts whose addresses are looked up at a time."""
MOST_HOSTS: Final = 30
"""Hosts of one domain that are looked up while those before have no address."""
TOLD: Final = 3
"""So many hosts that are of no use are told of in a failure."""

RouteKind = Literal["mx", "address", "literal", "relay"]
"""How the hosts were found: by MX records; the domain's own addresses, as it has no MX; an address literal;
a smarthost."""


@dataclass(frozen=True, slots=True)
class Relay:
    """A host that takes mail in place of the domain's own hosts."""

    host: str
    """A name or an IP address, in brackets or not. Its MX records are not asked for."""
    port: int = 587
    """1 to 65535; 465 is implicit TLS."""


@dataclass(frozen=True, slots=True)
class NextHost:
    """A host to try."""

    name: str
    """Lower-case A-labels without the last dot; an address in brackets where there is no name."""
    port: int
    preference: int
    """Of its MX record, 0 to 65535; 0 where there is none."""
    addresses: tuple[str, ...]
    """IPv4 and IPv6 addresses, in the order to try them; never empty."""
    secure: bool = False
    """Whether the addresses were validated (DNSSEC)."""
    canonical: str = ""
    """The name behind the aliases (CNAME) of ``name``; the same as ``name`` where it has none."""


@dataclass(frozen=True, slots=True)
class Route:
    """The way to a destination."""

    destination: str
    """The domain in lower-case A-labels, or an address literal."""
    kind: RouteKind
    hosts: tuple[NextHost, ...]
    """In the order to try them, with at most :data:`MOST_ADDRESSES` addresses in all; never empty."""
    secure: bool = False
    """Whether the MX records, or the lack of them, were validated (DNSSEC); DANE needs it (RFC 7672 2.2)."""
    passed_over: tuple[str, ...] = ()
    """A sentence about each MX that is not among the hosts though it is in DNS."""


_Candidate = tuple[int, HostAddresses]
"""A host with its preference."""


class RouteFailed(Exception):
    """There is no way to the destination, now or ever.

    ``code`` and ``status`` are what a reply would have (``556``, ``5.1.10``), ``why`` is a sentence for the
    sender.
    """

    def __init__(self, code: int, status: str, why: str) -> None:
        super().__init__(f"{code} {status} {why}")
        self.code = code
        self.status = status
        self.why = why

    @property
    def permanent(self) -> bool:
        """Whether trying again is of no use."""
        return self.status.startswith("5")


class Router:
    """Finds routes.

    :param resolver: whom to ask.
    :param own: what this host is known by, so that mail does not come back to it.
    :param port: the next hosts' port.
    :param relay: the smarthost; ``None``: the domains' own hosts.
    :param random: shuffles hosts of one preference, and the addresses of one host.
    :param reachable: whether there is a way to an address at all; asked for each, so it must be quick.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        own: OwnHost,
        port: int = SMTP_PORT,
        relay: Relay | None = None,
        random: Random | None = None,
        reachable: Callable[[str], bool] = reachable,
    ) -> None:
        self._resolver = resolver
        self._own = own
        self._port = port
        self._relay = relay
        self._random = random or SystemRandom()
        self._reachable = reachable

    async def route(self, destination: str, relay: Relay | None = None) -> Route:
        """The way to ``destination``, a domain or an address literal; through ``relay``, if one is given.

        :raises RouteFailed: there is none.
        """
        relay = relay or self._relay
        domain = destination if destination.startswith("[") else _ascii(destination)
        if relay is not None:
            return await self._by_relay(domain, relay)
        if domain.startswith("["):
            return self._by_literal(domain)
        if not domain.isascii() or literal_address(domain) is not None:
            raise RouteFailed(550, "5.1.2", f"{domain!a} is no domain name")
        return await self._by_domain(domain)

    async def _by_domain(self, domain: str) -> Route:
        try:
            answer = await self._resolver.lookup(domain, "MX")
        except NoSuchDomain as error:
            raise RouteFailed(550, "5.4.4", str(error)) from None
        except DNSFailure as error:
            raise RouteFailed(451, "4.4.3", str(error)) from None
        except NoRecords as error:
            return await self._by_address(domain, secure=error.authenticated)
        named = exchangers(answer)
        if all(one.is_null for one in named):
            raise RouteFailed(556, "5.1.10", f"{domain} takes no mail (null MX)")
        return await self._by_exchangers(domain, named, answer.authenticated)

    async def _by_address(self, domain: str, *, secure: bool) -> Route:
        """The implicit MX: a domain without MX records is its own host."""
        found = await addresses_of(self._resolver, domain)
        if found.temporary:
            raise RouteFailed(451, "4.4.3", found.why)
        if found.lack is not None:
            raise RouteFailed(550, "5.4.4", f"{found.why}, and no MX record either")
        if self._own.has_name(domain) or self._is_ours(found, self._port):
            raise _loop(domain)
        return Route(domain, "address", self._hosts([(0, found)], self._port), secure)

    async def _by_exchangers(self, domain: str, named: Sequence[MX], secure: bool) -> Route:
        """RFC 5321 5.1: hosts as good as we are or worse would give the mail back to us."""
        before_us = _before(named, _preference, lambda one: self._own.has_name(one.host))
        if not before_us:
            raise _loop(domain)
        passed_over = [_no_name(one) for one in before_us if not _is_name(one)]
        found = await self._look_up([one for one in self._in_order(before_us) if _is_name(one)])
        kept = _before(found, lambda one: one[0], lambda one: self._is_ours(one[1], self._port))
        if found and not kept:
            raise _loop(domain)
        passed_over += [host.why for _, host in kept if host.lack is not None]
        good = [one for one in kept if one[1].lack is None]
        if good:
            return Route(domain, "mx", self._hosts(good, self._port), secure, tuple(passed_over))
        why = f"no mail host of {domain} has an address: {'; '.join(passed_over[:TOLD])}"
        if any(host.temporary for _, host in kept):
            raise RouteFailed(451, "4.4.3", why)
        raise RouteFailed(550, "5.4.4", why)

    async def _by_relay(self, domain: str, relay: Relay) -> Route:
        """Whatever is wrong with the relay is not the mail's fault, which waits until it has been mended."""
        address = literal_address(relay.host)
        if address is not None:
            found = HostAddresses(f"[{address}]", (address,), canonical=f"[{address}]")
        else:
            found = await addresses_of(self._resolver, _ascii(relay.host))
        if found.lack is not None:
            raise RouteFailed(451, "4.4.3" if found.temporary else "4.4.4", f"relay host: {found.why}")
        if self._is_ours(found, relay.port):
            raise RouteFailed(451, "4.3.5", f"the relay host {found.name} is this host itself")
        return Route(domain, "relay", self._hosts([(0, found)], relay.port))

    def _by_literal(self, literal: str) -> Route:
        address = literal_address(literal)
        if address is None:
            raise RouteFailed(550, "5.1.2", f"{literal!a} is no address of a host")
        name = literal.lower()
        found = HostAddresses(name, (address,), canonical=name)
        if self._is_ours(found, self._port):
            raise _loop(name)
        return Route(name, "literal", self._hosts([(0, found)], self._port))

    def _is_ours(self, host: HostAddresses, port: int) -> bool:
        return any(self._own.listens_at(address, port) for address in host.addresses)

    def _in_order(self, named: Sequence[MX]) -> list[MX]:
        mixed = list(named)
        self._random.shuffle(mixed)
        return sorted(mixed, key=_preference)

    async def _look_up(self, named: Sequence[MX]) -> list[_Candidate]:
        """Addresses of the first hosts, and of more while there are none; one preference is not parted."""
        found: list[_Candidate] = []
        while len(found) < min(len(named), MOST_HOSTS):
            last = named[min(len(found) + AT_ONCE, len(named)) - 1].preference
            part = [one for one in named[len(found) : MOST_HOSTS] if one.preference <= last]
            asked = [Deferred.fromCoroutine(addresses_of(self._resolver, one.host)) for one in part]
            hosts = await gatherResults(asked, consumeErrors=True)
            found += [(one.preference, host) for one, host in zip(part, hosts, strict=True)]
            if any(host.lack is None for host in hosts):
                break
        return found

    def _hosts(self, found: Sequence[_Candidate], port: int) -> tuple[NextHost, ...]:
        """The hosts with the addresses to try. Those to which there is no way take no place from others."""
        shuffled = [self._random.sample(host.addresses, len(host.addresses)) for _, host in found]
        near = [[one for one in addresses if self._reachable(one)] for addresses in shuffled]
        chosen = choose(near if any(near) else shuffled, MOST_ADDRESSES)
        return tuple(
            NextHost(host.name, port, preference, tuple(addresses), host.secure, host.canonical)
            for (preference, host), addresses in zip(found, chosen, strict=True)
            if addresses
        )


def _ascii(name: str) -> str:
    return ascii_domain(name.removesuffix("."))


def _preference(exchanger: MX) -> int:
    return exchanger.preference


def _before(found: Sequence[T], preference: Callable[[T], int], ours: Callable[[T], bool]) -> list[T]:
    """Those that are to be preferred to the first one that is ours."""
    limit = min((preference(one) for one in found if ours(one)), default=None)
    return [one for one in found if limit is None or preference(one) < limit]


def _is_name(exchanger: MX) -> bool:
    return exchanger.host not in ("", ".") and literal_address(exchanger.host) is None


def _no_name(exchanger: MX) -> str:
    return f"the MX {exchanger.host!a} is no host name"


def _loop(domain: str) -> RouteFailed:
    return RouteFailed(550, "5.4.6", f"mail for {domain} would come back to this host")
