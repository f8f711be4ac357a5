"""Which TLS the next host of a route must have, before anything is said to it.

In this order: what the operator has set for the destination, DANE (RFC 7672), MTA-STS (RFC 8461), and else
TLS where the host offers it. A relay has what its settings say. A message under REQUIRETLS (RFC 8689) never
goes out by less than verified TLS, to a host that the domain has vouched for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from twisted.logger import Logger

from relaymail.delivery.addresses import literal_address
from relaymail.delivery.dane import HostRecords, TLSAFailed, tlsa_records
from relaymail.delivery.mta_sts import MTASTS
from relaymail.delivery.mta_sts_policy import Policy
from relaymail.delivery.route import NextHost, Relay, Route
from relaymail.dns import Resolver
from relaymail.smtp.client_tls import TLSMode, TLSRequirement, TrustRoots

log = Logger()

IMPLICIT_TLS_PORT: Final = 465

Source = Literal["override", "relay", "dane", "mta-sts", "requiretls", "opportunistic"]
"""What the requirement comes from."""
OverrideTLS = Literal["none", "opportunistic", "encrypted", "verified", "dane", "implicit"]
"""What an operator may set: clear text; TLS where it is offered; TLS with any certificate; with a certificate
of an authority; with TLSA records; with a certificate of an authority, and from the first octet on."""
Count = Callable[[str], None]

_SETTING: Final = {"relay": "relay", "override": "destination"}


@dataclass(frozen=True, slots=True)
class Override:
    """What the operator has set for one destination; ``None``: nothing of that kind."""

    tls: OverrideTLS | None = None
    relay: Relay | None = None
    """In place of the domain's own hosts; verified TLS, unless ``tls`` says otherwise."""


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The TLS of one next host."""

    source: Source
    requirement: TLSRequirement
    server_name: str
    """What the host is asked for in SNI: its name, or the TLSA base domain; its address if it has no name."""
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
    """Works out the TLS of next hosts.

    :param resolver: whom to ask for TLSA records.
    :param mta_sts: the domains' policies; ``None``: they are passed over.
    :param roots: authorities by which certificates are verified.
    :param relay_use_tls: whether the smarthost must have verified TLS; if not, it gets mail in clear.
    :param count: called with the source of each policy, and with ``testing`` for each host that a policy in
        mode testing does not name.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        mta_sts: MTASTS | None,
        roots: TrustRoots,
        relay_use_tls: bool = True,
        count: Count = lambda what: None,
    ) -> None:
        self._resolver = resolver
        self._mta_sts = mta_sts
        self._roots = roots
        self._relay_use_tls = relay_use_tls
        self._count = count

    async def for_host(
        self, route: Route, host: NextHost, *, require_tls: bool = False, override: Override | None = None
    ) -> HostPolicy:
        """What ``host`` must offer for mail to ``route.destination``.

        :param require_tls: the message is under REQUIRETLS.
        :param override: as given to the :class:`~relaymail.delivery.route.Router`, with its relay.
        :raises HostRefused: mail must not go to this host: its TLSA records cannot be looked up, the
            domain's MTA-STS policy does not name it, or REQUIRETLS cannot be met.
        :raises DatabaseError: the policies kept in the database could not be read.
        """
        override = override or Override()
        if route.kind == "relay":
            found = await self._set(route, host, "relay", override.tls or self._relay_default(override))
        elif override.tls is not None:
            found = await self._set(route, host, "override", override.tls)
        else:
            found = await self._of_domain(route, host)
        if require_tls:
            found = await self._required(route, host, found)
        self._count(found.source)
        return found

    def _relay_default(self, override: Override) -> OverrideTLS:
        # The setting is the smarthost's, not that of another relay
        return "verified" if override.relay is not None or self._relay_use_tls else "none"

    async def _set(self, route: Route, host: NextHost, source: Source, tls: OverrideTLS) -> HostPolicy:
        """What the operator has set."""
        name = _identity(host)
        match tls:
            case "none":
                requirement = TLSRequirement.none()
            case "opportunistic":
                requirement = TLSRequirement.opportunistic()
            case "encrypted":
                requirement = TLSRequirement.encrypted()
            case "dane":
                dane = await self._dane(route, host)
                if dane is None or not dane.records:
                    raise HostRefused(
                        451, "4.7.0", f"{host.name} has no usable TLSA record, as is set it must"
                    )
                requirement, name = TLSRequirement.dane(dane.records, dane.names), dane.base
            case "verified" | "implicit":
                requirement = self._verified(host)
        if tls == "implicit" or (host.port == IMPLICIT_TLS_PORT and tls != "none"):
            requirement = requirement.implicitly()
        return HostPolicy(source, requirement, name, f"{tls}, as set for the {_SETTING[source]}")

    async def _dane(self, route: Route, host: NextHost) -> HostRecords | None:
        try:
            return await tlsa_records(self._resolver, route, host)
        except TLSAFailed as error:
            raise HostRefused(451, "4.4.3", f"the TLSA records of {host.name}: {error}") from None

    async def _of_domain(self, route: Route, host: NextHost) -> HostPolicy:
        dane = await self._dane(route, host)
        if dane is not None and dane.records:
            requirement = TLSRequirement.dane(dane.records, dane.names)
            return HostPolicy("dane", requirement, dane.base, f"TLSA records of {dane.base}")
        policy = await self._policy(route)
        if policy is not None and self._is_enforced(policy, route, host):
            why = f"the MTA-STS policy of {route.destination}"
            return HostPolicy("mta-sts", self._verified(host), host.name, why)
        if dane is not None:
            why = f"no TLSA record of {dane.base} is usable: any certificate, but never in clear"
            return HostPolicy("dane", TLSRequirement.encrypted(), dane.base, why)
        why = "TLS where it is offered"
        return HostPolicy("opportunistic", TLSRequirement.opportunistic(), _identity(host), why)

    async def _policy(self, route: Route) -> Policy | None:
        if self._mta_sts is None or route.kind not in ("mx", "address"):
            return None
        return await self._mta_sts.policy(route.destination)

    def _is_enforced(self, policy: Policy, route: Route, host: NextHost) -> bool:
        """Whether the policy asks for verified TLS.

        :raises HostRefused: it is enforced, and does not name the host (RFC 8461 5).
        """
        named = policy.names(host.name)
        if policy.mode == "enforce":
            if not named:
                why = f"the MTA-STS policy of {route.destination} does not name its MX {host.name}"
                raise HostRefused(451, "4.7.0", why)
            return True
        if not named:
            self._count("testing")
            log.info(
                "The MTA-STS policy of {domain}, which is in mode testing, does not name its MX {host}",
                domain=route.destination,
                host=host.name,
            )
        return False

    async def _required(self, route: Route, host: NextHost, found: HostPolicy) -> HostPolicy:
        """At least verified TLS. A certificate is worth what the name is that it is for (RFC 8689 4.2.1).

        :raises HostRefused: anyone may have put that name into DNS.
        """
        if not await self._is_vouched_for(route, host):
            why = f"REQUIRETLS: {host.name} is no proven host of {route.destination} (DNSSEC, MTA-STS)"
            raise HostRefused(550, "5.7.30", why)
        if found.requirement.mode in (TLSMode.VERIFIED, TLSMode.DANE):
            return found
        requirement = self._verified(host)
        if host.port == IMPLICIT_TLS_PORT:
            requirement = requirement.implicitly()
        source: Source = "relay" if route.kind == "relay" else "requiretls"
        return HostPolicy(source, requirement, _identity(host), "REQUIRETLS of the message")

    async def _is_vouched_for(self, route: Route, host: NextHost) -> bool:
        if route.secure or route.kind in ("relay", "literal") or host.name == route.destination:
            return True
        policy = await self._policy(route)
        return policy is not None and policy.names(host.name)

    def _verified(self, host: NextHost) -> TLSRequirement:
        return TLSRequirement.verified((_identity(host),), self._roots)


def _identity(host: NextHost) -> str:
    """The host's name, or its address where it has none: what its certificate is for."""
    return literal_address(host.name) or host.name
