"""DNS lookups: dnspython's resolver on the reactor, a deadline around it, and outcomes told apart."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.resolver
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout

from relaymail.dns.backend import Abandoned, Backend
from relaymail.dns.outcome import MX, Answer, DNSFailure, FailureKind, NoRecords, NoSuchDomain
from relaymail.dns.servers import FixedServers, Server, SystemServers

TIMEOUT = 5.0
"""Seconds for a whole lookup, whatever number of servers and tries it takes."""
ATTEMPT_TIMEOUT = 2.0
"""Seconds one server is given before the next is asked; half of the whole where that is less."""
PAYLOAD = 1232
"""The EDNS buffer size: answers that fit are not fragmented; larger ones come over TCP."""
CACHED_ANSWERS = 10_000
LONGEST_CACHED = 3600.0
"""Seconds after which a cached answer is asked for again, however long its TTL."""
Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class _Cache(dns.resolver.LRUCache):
    """Answers until their TTL ends, none longer than :data:`LONGEST_CACHED`."""

    def put(self, key: Any, value: dns.resolver.Answer) -> None:
        """Keep ``value``."""
        value.expiration = min(value.expiration, time.time() + LONGEST_CACHED)
        super().put(key, value)


class _Nameserver(dns.nameserver.Do53Nameserver):
    """A server asked over UDP, or TCP; its AD bit is taken off where it does not count."""

    def __init__(self, server: Server, *, trusted: bool) -> None:
        super().__init__(server.address, server.port)
        self._trusted = trusted

    async def async_query(self, *args: Any, **kwargs: Any) -> dns.message.Message:
        """Send a query and wait for its answer."""
        response = await super().async_query(*args, **kwargs)
        if not self._trusted:
            response.flags &= ~dns.flags.AD
        return response


class Resolver:
    """Asks recursive DNS servers; the reactor turns meanwhile.

    :param servers: ``address``, ``address:port`` or ``[v6]:port`` each, asked in this order; none: the
        system's.
    :param reactor: for sockets, timers and the thread that reads resolv.conf(5).
    :param timeout: seconds for a whole lookup.
    :param trusted: networks of the servers whose AD bit counts: validating ones that nobody can get in
        between of (RFC 4035 4.9.3).
    :raises ValueError: one of ``servers`` is none.
    """

    def __init__(
        self,
        servers: Sequence[str] = (),
        *,
        reactor: Any,
        timeout: float = TIMEOUT,
        trusted: Collection[Network] = LOOPBACK,
    ) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._trusted = tuple(trusted)
        self._servers = FixedServers(servers) if servers else SystemServers(reactor=reactor)
        self._backend = Backend(reactor)
        self._cache = _Cache(CACHED_ANSWERS)

    async def mx(self, domain: str, *, fresh: bool = False, limit: float | None = None) -> list[MX]:
        """The mail exchangers of ``domain``, lowest preference first; never empty.

        Parameters and errors are those of :meth:`lookup`. A null MX is in the list like any other: see
        :attr:`~relaymail.dns.outcome.MX.is_null`.
        """
        return exchangers(await self.lookup(domain, "MX", fresh=fresh, limit=limit))

    async def lookup(
        self, name: str, rdtype: str, *, fresh: bool = False, limit: float | None = None
    ) -> Answer:
        """The records of type ``rdtype`` (``"A"``, ``"TLSA"``, …) of ``name``, which needs no last dot.

        :param fresh: ask the servers even where the answer is cached.
        :param limit: seconds, in place of the resolver's timeout.
        :raises NoSuchDomain: there is no such name, or it is no name.
        :raises NoRecords: the name has no such records.
        :raises DNSFailure: the servers gave no answer, or not in time.
        """
        wanted = dns.rdatatype.from_text(rdtype)
        try:
            question = dns.name.from_text(name).canonicalize()
        except (dns.exception.DNSException, UnicodeError):
            raise NoSuchDomain(name, rdtype) from None
        if question == dns.name.root:
            raise NoSuchDomain(name, rdtype)
        if not fresh and (known := self._known(name, question, wanted)) is not None:
            return known
        seconds = self._timeout if limit is None else limit
        asking = Deferred.fromCoroutine(self._ask(name, question, wanted, seconds, fresh))
        asking.addTimeout(seconds, self._reactor)
        try:
            return await asking
        except DeferredTimeout:
            raise DNSFailure(name, rdtype, "timeout") from None

    def _known(self, name: str, question: dns.name.Name, wanted: dns.rdatatype.RdataType) -> Answer | None:
        """What the cache says. dnspython would say the same, at ten times the price: each message asks."""
        found = self._cache.get((question, wanted, dns.rdataclass.IN))
        if found is not None:
            if found.rrset is not None:
                return _as_answer(found)
            rdtype = dns.rdatatype.to_text(wanted)
            raise NoRecords(name, rdtype, authenticated=_authenticated(found.response))
        denied = self._cache.get((question, dns.rdatatype.ANY, dns.rdataclass.IN))
        if denied is not None and denied.response.rcode() == dns.rcode.NXDOMAIN:
            rdtype = dns.rdatatype.to_text(wanted)
            raise NoSuchDomain(name, rdtype, authenticated=_authenticated(denied.response))
        return None

    async def _ask(
        self, name: str, question: dns.name.Name, wanted: dns.rdatatype.RdataType, seconds: float, fresh: bool
    ) -> Answer:
        rdtype = dns.rdatatype.to_text(wanted)
        asked = self._dnspython(await self._servers.current(), seconds, fresh)
        try:
            found = await asked.resolve(question, wanted, search=False, backend=self._backend)
        except Abandoned:
            raise CancelledError from None
        except dns.resolver.NXDOMAIN as outcome:
            answered = outcome.kwargs["responses"][question]
            raise NoSuchDomain(name, rdtype, authenticated=_authenticated(answered)) from None
        except dns.resolver.NoAnswer as outcome:
            answered = outcome.kwargs["response"]
            raise NoRecords(name, rdtype, authenticated=_authenticated(answered)) from None
        except (dns.exception.DNSException, OSError) as outcome:
            raise DNSFailure(name, rdtype, _failure_kind(outcome)) from outcome
        return _as_answer(found)

    def _dnspython(
        self, servers: Sequence[Server], seconds: float, fresh: bool
    ) -> dns.asyncresolver.Resolver:
        asked = dns.asyncresolver.Resolver(configure=False)
        asked.nameservers = [_Nameserver(server, trusted=self._trusts(server)) for server in servers]
        # A little less than the deadline around it: dnspython still knows what each server said
        asked.lifetime = seconds * 0.95
        asked.timeout = min(ATTEMPT_TIMEOUT, seconds / 2)
        asked.cache = None if fresh else self._cache
        # The AD bit in a query asks for the one in the answer, without DO's signatures (RFC 6840 5.7)
        asked.flags = dns.flags.RD | dns.flags.AD
        asked.use_edns(0, 0, PAYLOAD)
        return asked

    def _trusts(self, server: Server) -> bool:
        address = ip_address(server.address)
        return any(address in network for network in self._trusted)


def _as_answer(found: dns.resolver.Answer) -> Answer:
    assert found.rrset is not None
    canonical = found.canonical_name.to_text(omit_final_dot=True).lower()
    return Answer(tuple(found.rrset), _authenticated(found.response), int(found.rrset.ttl), canonical)


def _authenticated(response: dns.message.Message) -> bool:
    return bool(response.flags & dns.flags.AD)


def exchangers(answer: Answer) -> list[MX]:
    """The mail exchangers in the answer to a look-up of MX, lowest preference first."""
    return sorted(_exchanger(record) for record in answer.records)


def _exchanger(record: Any) -> MX:
    assert isinstance(record, dns.rdtypes.ANY.MX.MX)
    return MX(record.preference, record.exchange.to_text(omit_final_dot=True).lower())


def _failure_kind(outcome: BaseException) -> FailureKind:
    """Which of the failures to tell: an error code says more than silence, silence more than no way there."""
    if isinstance(outcome, dns.resolver.YXDOMAIN):
        return "servfail"
    causes = [error[3] for error in getattr(outcome, "kwargs", {}).get("errors") or []]
    if "SERVFAIL" in causes:
        return "servfail"
    if "REFUSED" in causes:
        return "refused"
    if any(isinstance(cause, str) for cause in causes):
        return "servfail"
    if any(isinstance(cause, dns.exception.Timeout) for cause in [outcome, *causes]):
        return "timeout"
    return "network"
