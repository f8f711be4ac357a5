"""Which TLS the next host of a route must have, before anything is said to it.

In this order: what the operator has set for the destination, DANE (RFC 7672), MTA-STS (RFC 8461), and else TLS
where the host offers it. A message under REQUIRETLS (RFC 8689) never goes out by less than verified TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from relaymail.delivery.route import NextHost, Relay, Route

Source = Literal["override", "relay", "dane", "mta-sts", "requiretls", "opportunistic"]
OverrideTLS = Literal["none", "opportunistic", "encrypted", "verified"]


@dataclass(frozen=True, slots=True)
class Override:
    """What the operator has set for one destination; ``None``: nothing of that kind."""

    tls: OverrideTLS | None = None
    relay: Relay | None = None


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The TLS of one next host."""

    source: Source
    requirement: Any
    """The client's :class:`~relaymail.smtp.client_tls.TLSRequirement`."""
    why: str
    """A sentence for the log and the trace."""


class HostRefused(Exception):
    """This host must not be given the mail now; the next one of the route may be better.

    ``code``, ``status`` and ``why`` as in :class:`~relaymail.delivery.route.RouteFailed`.
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


class TLSPolicies:
    """Works out the TLS of next hosts."""

    async def for_host(
        self, route: Route, host: NextHost, *, require_tls: bool = False, override: Override | None = None
    ) -> HostPolicy:
        """What ``host`` must offer for mail to ``route.destination``.

        :param require_tls: the message is under REQUIRETLS.
        :raises HostRefused: mail must not go to this host: its TLSA records cannot be looked up, the
            domain's MTA-STS policy does not name it, or REQUIRETLS cannot be met.
        :raises DatabaseError: the policies kept in the database could not be read.
        """
        raise NotImplementedError
