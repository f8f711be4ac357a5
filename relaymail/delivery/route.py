"""Which hosts a message for a domain is given to, in which order, and at which addresses (RFC 5321 5.1).

A route is worked out anew for each try; the resolver's cache makes that cheap. What it ends in is told apart with
care: only what the domain itself says in DNS fails mail for good, anything that is broken on the way, or in
our own settings, defers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

SMTP_PORT: Final = 25
MOST_ADDRESSES: Final = 5
"""Addresses of one try, all hosts together."""

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
    """Whether the MX records, or the lack of them, were validated (DNSSEC). DANE needs it (RFC 7672 2.2.1)."""
    passed_over: tuple[str, ...] = ()
    """A sentence about each MX that is not among the hosts though it is in DNS."""


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
    :param random: shuffles hosts of one preference.
    :param reachable: whether there is a way to an address at all; asked for each, so it must be quick.
    """

    def __init__(
        self,
        resolver: Any,
        *,
        own: Any,
        port: int = SMTP_PORT,
        relay: Relay | None = None,
        random: Any = None,
        reachable: Any = None,
    ) -> None: ...

    async def route(self, destination: str, relay: Relay | None = None) -> Route:
        """The way to ``destination``, a domain or an address literal; through ``relay``, if one is given.

        :raises RouteFailed: there is none.
        """
        raise NotImplementedError
