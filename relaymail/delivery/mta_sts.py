"""MTA-STS (RFC 8461): which policy counts for a domain right now.

The domain's TXT record says that there is a policy, and changes its id with it. A policy is fetched when the
id is a new one, and once a day; it is kept in the database for all hosts, and counts until it expires,
whatever DNS and the web server say meanwhile. What cannot be fetched is tried again later, and mail goes out
as if it were not there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.delivery.mta_sts_policy import Policy, PolicyError, parse_policy, parse_records, record_name
from relaymail.delivery.policy_fetch import FetchFailed
from relaymail.dns import DNSError, Resolver
from relaymail.store import mta_sts as store
from relaymail.store.cache import TimedCache
from relaymail.store.database import Database, DatabaseError
from relaymail.store.mta_sts import KeptPolicy

log = Logger()

REMEMBERED: Final = 60.0
"""Seconds for which an answer is not asked for again in this process."""
DOMAINS_REMEMBERED: Final = 10_000
REFRESH: Final = 86_400.0
"""Seconds after which a policy is fetched again though its id is the same, so that it does not expire
(RFC 8461 10.2); half its lifetime, where that is less."""

Fetch = Callable[[str], Awaitable[str]]
"""From a domain to the text of its policy; raises :class:`~relaymail.delivery.policy_fetch.FetchFailed`."""


class MTASTS:
    """Finds policies.

    :param fetch: :meth:`relaymail.delivery.policy_fetch.PolicyFetcher.fetch`.
    :param clock: for what is remembered in this process.
    :param remembered: seconds, see :data:`REMEMBERED`.
    :param count: called with ``fetched`` or ``failed`` for each fetch.
    """

    def __init__(
        self,
        resolver: Resolver,
        database: Database,
        fetch: Fetch,
        *,
        clock: Any,
        remembered: float = REMEMBERED,
        count: Callable[[str], None] = lambda result: None,
    ) -> None:
        self._resolver = resolver
        self._database = database
        self._fetch = fetch
        self._count = count
        self._known: TimedCache[str, _Known] = TimedCache(clock, lifetime=remembered, size=DOMAINS_REMEMBERED)
        self._looking: dict[str, _Look] = {}

    async def policy(self, domain: str) -> Policy | None:
        """The policy that counts for ``domain`` (lower-case A-labels), in mode enforce or testing.

        ``None``: the domain has none, or has never been seen to have one. Calls for one domain that come
        together share one look.

        :raises DatabaseError: what is kept could not be read: there may be a policy.
        """
        known = self._known.get(domain)
        if known is None:
            known = await self._look(domain)
        return known.policy

    def stop(self) -> None:
        """Give up what is being looked for; whoever waits gets ``CancelledError``."""
        for look in list(self._looking.values()):
            look.cancel()

    def _look(self, domain: str) -> Deferred[_Known]:
        look = self._looking.get(domain)
        if look is None:
            look = _Look(self._find(domain), lambda: self._looking.pop(domain, None))
            if not look.over:
                self._looking[domain] = look
        return look.wait()

    async def _find(self, domain: str) -> _Known:
        kept = await store.read(self._database, domain)
        policy = _counting(kept)
        announced = await self._announced(domain)
        if announced is not None and _is_wanted(kept, policy, announced):
            policy = await self._renew(domain, announced, policy)
        known = _Known(None if policy is None or policy.mode == "none" else policy)
        self._known.put(domain, known)
        return known

    async def _announced(self, domain: str) -> str | None:
        """The id in DNS; ``None``: none, or it cannot be told. Either way what is kept goes on to count."""
        try:
            answer = await self._resolver.lookup(record_name(domain), "TXT")
            return parse_records([_text(record) for record in answer.records])
        except (DNSError, PolicyError):
            return None

    async def _renew(self, domain: str, announced: str, policy: Policy | None) -> Policy | None:
        try:
            text = await self._fetch(domain)
            fetched = parse_policy(text)
        except (FetchFailed, PolicyError) as error:
            self._count("failed")
            log.info("The MTA-STS policy of {domain} is not to be had: {why}", domain=domain, why=str(error))
            await self._keep(store.save_failure(self._database, domain, announced, str(error)))
            return policy
        self._count("fetched")
        log.debug("MTA-STS policy of {domain}: {policy}", domain=domain, policy=fetched)
        await self._keep(store.save(self._database, domain, announced, text, fetched.max_age))
        return fetched

    async def _keep(self, writing: Awaitable[None]) -> None:
        """The policy counts for this mail even where it cannot be kept for the next."""
        try:
            await writing
        except DatabaseError as error:
            log.warn("An MTA-STS policy could not be kept: {why}", why=str(error))


class _Known:
    """What was found out, a policy or that there is none."""

    __slots__ = ("policy",)

    def __init__(self, policy: Policy | None) -> None:
        self.policy = policy


class _Look:
    """One search for any number of waiters: one that gives up does not end it for the others."""

    def __init__(self, search: Any, ended: Callable[[], object]) -> None:
        self._waiting: list[Deferred[_Known]] = []
        self._ended = ended
        self.over = False
        self._result: Any = None
        self._search: Deferred[_Known] = Deferred.fromCoroutine(search)
        self._search.addBoth(self._finish)

    def wait(self) -> Deferred[_Known]:
        """The result, for one more waiter."""
        waiter: Deferred[_Known] = Deferred(self._waiting_no_more)
        self._waiting.append(waiter)
        if self.over:
            self._tell()
        return waiter

    def cancel(self) -> None:
        """End it for everyone."""
        self._search.cancel()

    def _waiting_no_more(self, waiter: Deferred[_Known]) -> None:
        self._waiting.remove(waiter)

    def _finish(self, result: Any) -> None:
        self.over, self._result = True, result
        self._ended()
        if (
            not self._waiting
            and isinstance(result, Failure)
            and not result.check(DatabaseError, CancelledError)
        ):
            log.failure("Looking for an MTA-STS policy that nobody waits for any more failed", failure=result)
        self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._result)


def _counting(kept: KeptPolicy | None) -> Policy | None:
    if kept is None or kept.policy is None or kept.expires_in is None or kept.expires_in <= 0:
        return None
    try:
        return parse_policy(kept.policy)
    except PolicyError:
        # Kept by another version that read policies in another way
        return None


def _is_wanted(kept: KeptPolicy | None, policy: Policy | None, announced: str) -> bool:
    """Whether the announced policy is to be fetched now."""
    if kept is None:
        return True
    if kept.failed_id == announced and kept.retry_in > 0:
        return False
    if policy is None or kept.policy_id != announced or kept.age is None:
        return True
    return kept.age >= min(REFRESH, policy.max_age / 2)


def _text(record: Any) -> str:
    # What is not ASCII is no record of MTA-STS
    return b"".join(record.strings).decode("ascii", "replace")
