"""Addresses that their host has said do not exist: for a while, mail for them is refused at RCPT.

Only the three status codes that speak of the address itself get one here: no such mailbox (5.1.1), no such
domain (5.1.2), a domain that takes no mail (5.1.10). The entry is made by the statement that settles the
failure (``relaymail.queue_settle``), or by an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from relaymail.store.accounts import LOOKUP_TIMEOUT, storable
from relaymail.store.cache import Seconds, TimedCache
from relaymail.store.coalesce import Coalescer
from relaymail.store.database import Database
from relaymail.store.queue_text import presentable

STATUSES: Final = frozenset({"5.1.1", "5.1.2", "5.1.10"})
LIFE: Final = 30 * 86400.0
"""Seconds that an entry counts."""
CACHE_SECONDS: Final = 10.0
CACHED: Final = 10_000

_FIND: Final = """
SELECT address, status, reply, since, expires_at, message_id FROM relaymail.suppression
 WHERE address = ANY (%s::text[]) AND expires_at > now()
"""
_LIST: Final = """
SELECT address, status, reply, since, expires_at, message_id FROM relaymail.suppression
 WHERE expires_at > now() AND (%s::text IS NULL OR strpos(address, %s) > 0)
 ORDER BY since DESC, address LIMIT %s
"""
_ADD: Final = """
INSERT INTO relaymail.suppression (address, status, reply, expires_at)
VALUES (%s, %s, %s, now() + %s * interval '1 second')
ON CONFLICT (address) DO UPDATE
   SET status = excluded.status, reply = excluded.reply, message_id = NULL, since = now(),
       expires_at = excluded.expires_at
RETURNING address, status, reply, since, expires_at, message_id
"""
_REMOVE: Final = "DELETE FROM relaymail.suppression WHERE address = ANY (%s::text[])"
_PURGE: Final = (
    "DELETE FROM relaymail.suppression WHERE address IN ("
    "SELECT address FROM relaymail.suppression WHERE expires_at < now() LIMIT %s)"
)


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that is not written to."""

    address: str
    """In lower case."""
    status: str
    """What was said of it, as an enhanced status code."""
    reply: str
    """The host's exact reply, or the operator's reason."""
    since: datetime
    expires_at: datetime
    message_id: UUID | None
    """The message that was refused; ``None``: an operator's entry."""


class Suppressions:
    """The list. Raises :class:`~relaymail.store.database.DatabaseError`."""

    def __init__(self, database: Database, *, clock: Seconds) -> None:
        self._database = database
        self._known: TimedCache[str, tuple[Suppression | None]] = TimedCache(
            clock, lifetime=CACHE_SECONDS, size=CACHED
        )
        self._lookup: Coalescer[Suppression] = Coalescer(self._fetch)

    async def find(self, address: str) -> Suppression | None:
        """The entry of an address, in any case. What is found, or not, is remembered for ten seconds, and
        look-ups that come together share a query."""
        key = address.lower()
        if not storable(key):
            return None
        known = self._known.get(key)
        if known is not None:
            return known[0]
        found = await self._lookup.get(key)
        self._known.put(key, (found,))
        return found

    async def list_entries(self, part: str | None = None, limit: int = 100) -> list[Suppression]:
        """The entries that count, newest first; with ``part`` those whose address has it in it."""
        wanted = None if part is None else part.lower()
        rows = await self._database.query("suppression.list", _LIST, (wanted, wanted, limit))
        return [Suppression(*row) for row in rows]

    async def add(
        self, address: str, reason: str, *, life: float = LIFE, status: str = "5.1.1"
    ) -> Suppression:
        """Write to an address no more, for ``life`` seconds from now. Twice is once, with the new reason."""
        rows = await self._database.query(
            "suppression.add", _ADD, (address.lower(), status, presentable(reason), life)
        )
        self._known.clear()
        return Suppression(*rows[0])

    async def remove(self, addresses: Sequence[str]) -> int:
        """Write to these again. Returns how many were on the list."""
        keys = [address.lower() for address in addresses]
        removed = await self._database.execute("suppression.remove", _REMOVE, (keys,))
        self._known.clear()
        return removed

    async def _fetch(self, keys: Sequence[str]) -> Mapping[str, Suppression]:
        rows = await self._database.query("suppression.find", _FIND, (list(keys),), timeout=LOOKUP_TIMEOUT)
        return {row[0]: Suppression(*row) for row in rows}


async def purge(database: Database, batch: int = 1000) -> int:
    """Delete entries that count no more, ``batch`` rows a time. Returns how many."""
    total = 0
    while deleted := await database.execute("suppression.purge", _PURGE, (batch,)):
        total += deleted
    return total
