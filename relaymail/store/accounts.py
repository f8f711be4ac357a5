"""Who owns an address, who may log in with which key, and as whom a login may send.

Reads the shared tables ``Users``, ``UserEmailAddresses`` and ``SmtpApiKeys``, which belong to the API, and
``relaymail.sender_grant``. The only thing written here is ``LastUsedAt``; what the command line changes is in
:mod:`relaymail.store.administration`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from twisted.logger import Logger

from relaymail.store.cache import Seconds, TimedCache
from relaymail.store.coalesce import Coalescer
from relaymail.store.database import Database, DatabaseError

log = Logger()

KEY_REVOKED_CHANNEL = "relaymail_key_revoked"
"""The NOTIFY channel that tells every host of a key our command line revoked; the payload is its id."""

LOOKUP_TIMEOUT = 10.0
"""Seconds for a look-up; a client waits for its answer, and 451 lets it try again."""

CACHE_SECONDS = 1.0
OWNERS_CACHED = 10_000
SENDERS_CACHED = 1_000
WARNINGS_KEPT = 1_000
LONGEST_ADDRESS = 320
"""Characters of the columns ``Email`` and ``Address``."""

KEYS_TRIED = 10
"""Most keys a login is checked against: each costs a bcrypt."""

LEGACY_SECONDS = 60.0
"""How long to believe that ``SmtpApiKeys`` has no ``KeyPrefix``: an API upgrade adds it while we run."""

UNDEFINED_COLUMN = "42703"

# lower() is the server's on both sides: its notion of case is that of the indexes, and need not be Python's
_OWNERS = """
    SELECT wanted.address, claim.user_id, claim.address
    FROM unnest(%s::text[]) AS wanted (address)
    CROSS JOIN LATERAL (
        SELECT u."Id" AS user_id, u."Email" AS address, u."CreatedAt" AS since
        FROM public."Users" u WHERE lower(u."Email") = lower(wanted.address)
        UNION ALL
        SELECT u."Id", a."Address", u."CreatedAt"
        FROM public."UserEmailAddresses" a JOIN public."Users" u ON u."Id" = a."UserId"
        WHERE lower(a."Address") = lower(wanted.address) AND a."IsVerified"
    ) AS claim
    ORDER BY wanted.address, claim.since, claim.user_id
"""

_CANDIDATES = """
    SELECT k."Id", k."UserId", k."KeyHash", k."Scopes", u."Email"
    FROM public."Users" u JOIN public."SmtpApiKeys" k ON k."UserId" = u."Id"
    WHERE lower(u."Email") = lower(%s) AND k."RevokedAt" IS NULL
      AND (k."KeyPrefix" = %s OR k."KeyPrefix" IS NULL)
    ORDER BY k."KeyPrefix" IS NULL, k."CreatedAt" DESC
    LIMIT %s
"""

_CANDIDATES_WITHOUT_PREFIX = """
    SELECT k."Id", k."UserId", k."KeyHash", k."Scopes", u."Email"
    FROM public."Users" u JOIN public."SmtpApiKeys" k ON k."UserId" = u."Id"
    WHERE lower(u."Email") = lower(%s) AND k."RevokedAt" IS NULL
    ORDER BY k."CreatedAt" DESC
    LIMIT %s
"""

# GREATEST passes over nulls, and keeps a later use that another host or the API has written
_TOUCH_KEYS = """
    UPDATE public."SmtpApiKeys" k SET "LastUsedAt" = GREATEST(k."LastUsedAt", used.at)
    FROM unnest(%s::uuid[], %s::timestamptz[]) AS used (id, at)
    WHERE k."Id" = used.id
"""

_SENDER_ADDRESSES = """
    SELECT lower("Email") FROM public."Users" WHERE "Id" = %s
    UNION SELECT lower("Address") FROM public."UserEmailAddresses" WHERE "UserId" = %s AND "IsVerified"
    UNION SELECT lower(address) FROM relaymail.sender_grant WHERE user_id = %s
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """The local user of an address, and the address as the account spells it."""

    user_id: UUID
    address: str


@dataclass(frozen=True, slots=True)
class KeyCandidate:
    """A key that a login may be using; only its bcrypt hash can tell."""

    key_id: UUID
    user_id: UUID
    key_hash: str
    scopes: frozenset[str]
    email: str


class Accounts:
    """The accounts as the sessions see them; look-ups are joined and remembered for a second.

    Every method that asks the database raises :class:`~relaymail.store.database.DatabaseError`.
    """

    def __init__(self, database: Database, *, clock: Seconds) -> None:
        self._database = database
        self._clock = clock
        self._owners: TimedCache[str, Owner] = TimedCache(clock, lifetime=CACHE_SECONDS, size=OWNERS_CACHED)
        self._senders: TimedCache[UUID, frozenset[str]] = TimedCache(
            clock, lifetime=CACHE_SECONDS, size=SENDERS_CACHED
        )
        self._lookup: Coalescer[Owner] = Coalescer(self.owners)
        self._warned: set[str] = set()
        self._legacy_until: float | None = None

    async def owners(self, addresses: Iterable[str]) -> dict[str, Owner]:
        """The local owners of ``addresses``, by lower-case address; one nobody has is left out.

        An address belongs to the user whose e-mail address or *verified* additional address it is, in any
        case. Where several claim it the oldest user has it, and one warning says so.
        """
        wanted = {address.lower() for address in addresses if storable(address)}
        if not wanted:
            return {}
        rows = await self._database.query(
            "accounts.owners", _OWNERS, (sorted(wanted),), timeout=LOOKUP_TIMEOUT
        )
        found: dict[str, Owner] = {}
        for key, user_id, address in rows:
            first = found.setdefault(key, Owner(user_id, address))
            if first.user_id != user_id:
                self._warn(key, first.user_id, user_id)
        for key, owner in found.items():
            self._owners.put(key, owner)
        return found

    def cached_owner(self, address: str) -> Owner | None:
        """The owner of ``address`` if it was looked up within the last second; ``None`` says nothing."""
        return self._owners.get(address.lower())

    async def owner(self, address: str) -> Owner | None:
        """The local owner of ``address``, or ``None``, which is not remembered: a new user counts at once."""
        key = address.lower()
        return self._owners.get(key) or await self._lookup.get(key)

    async def candidates(self, login: str, prefix: str) -> list[KeyCandidate]:
        """The keys, revoked ones left out, that ``login`` may be using, likeliest first, at most ten.

        :param login: the user's e-mail address in any case; no other address is a login name.
        :param prefix: first 12 characters of the key given. Keys stored without a prefix are candidates too.
        """
        if not (storable(login) and storable(prefix)):
            return []
        rows = await self._candidate_rows(login, prefix)
        return [
            KeyCandidate(key_id, user_id, key_hash, parse_scopes(scopes), email)
            for key_id, user_id, key_hash, scopes, email in rows
        ]

    async def _candidate_rows(self, login: str, prefix: str) -> Sequence[tuple[UUID, UUID, str, str, str]]:
        """Ask with the column ``KeyPrefix``, and without it where an older API has not made it yet."""
        if self._legacy_until is None or self._clock.seconds() >= self._legacy_until:
            try:
                return await self._database.query(
                    "accounts.candidates", _CANDIDATES, (login, prefix, KEYS_TRIED), timeout=LOOKUP_TIMEOUT
                )
            except DatabaseError as error:
                if error.sqlstate != UNDEFINED_COLUMN:
                    raise
                self._legacy_until = self._clock.seconds() + LEGACY_SECONDS
        return await self._database.query(
            "accounts.candidates_without_prefix",
            _CANDIDATES_WITHOUT_PREFIX,
            (login, KEYS_TRIED),
            timeout=LOOKUP_TIMEOUT,
        )

    async def touch_keys(self, used: Mapping[UUID, datetime]) -> None:
        """Write ``LastUsedAt`` of many keys in one statement; a later time already there stays."""
        if not used:
            return
        keys = sorted(used)  # the same order in every host, so that two of them do not deadlock
        await self._database.execute("accounts.touch_keys", _TOUCH_KEYS, (keys, [used[key] for key in keys]))

    async def sender_addresses(self, user_id: UUID) -> frozenset[str]:
        """What ``user_id`` may send as, lower-case: own, verified, granted; ``@domain`` is a whole domain."""
        known = self._senders.get(user_id)
        if known is not None:
            return known
        rows = await self._database.query(
            "accounts.sender_addresses", _SENDER_ADDRESSES, (user_id,) * 3, timeout=LOOKUP_TIMEOUT
        )
        addresses = frozenset(address for (address,) in rows)
        self._senders.put(user_id, addresses)
        return addresses

    def _warn(self, address: str, kept: UUID, passed_over: UUID) -> None:
        """Say once per address (and process) that two users claim it."""
        if address in self._warned:
            return
        if len(self._warned) >= WARNINGS_KEPT:
            self._warned.clear()
        self._warned.add(address)
        log.warn(
            "The address {address!r} is claimed by several users: mail for it goes to the oldest, {kept}, "
            "and not to {passed_over}; take it from one of them",
            address=address,
            kept=kept,
            passed_over=passed_over,
        )


def storable(text: str) -> bool:
    """Whether PostgreSQL could hold ``text`` as an address; one that it cannot would fail a whole batch."""
    if not 0 < len(text) <= LONGEST_ADDRESS or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_scopes(text: str) -> frozenset[str]:
    """The column ``Scopes``, a JSON list of text; what is no such list permits nothing."""
    try:
        scopes = json.loads(text)
    except ValueError:
        return frozenset()
    return (
        frozenset(scope for scope in scopes if isinstance(scope, str))
        if isinstance(scopes, list)
        else frozenset()
    )
