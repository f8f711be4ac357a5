"""MTA-STS policies (RFC 8461), kept for all hosts until they expire. All times are PostgreSQL's.

Every function raises :class:`~relaymail.store.database.DatabaseError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relaymail.store.database import Database

FIRST_RETRY: Final = 300
"""Seconds before a fetch that failed is tried again (RFC 8461 3.3); doubles with each failure."""
LAST_RETRY: Final = 86_400
ERROR_LIMIT: Final = 300
"""Characters of an error that are kept."""
PURGE_BATCH: Final = 1000

_READ: Final = """
SELECT policy_id, policy,
       extract(epoch FROM now() - fetched_at)::float8, extract(epoch FROM expires_at - now())::float8,
       failed_id, coalesce(extract(epoch FROM retry_at - now()), 0)::float8
  FROM relaymail.mta_sts WHERE domain = %s
"""

_SAVE: Final = """
INSERT INTO relaymail.mta_sts (domain, policy_id, policy, fetched_at, expires_at)
VALUES (%s, %s, %s, now(), now() + %s * interval '1 second')
    ON CONFLICT (domain) DO UPDATE
   SET policy_id = excluded.policy_id, policy = excluded.policy, fetched_at = excluded.fetched_at,
       expires_at = excluded.expires_at, failed_id = NULL, failures = 0, retry_at = NULL, last_error = NULL
"""

# A new id is a new try: the waits of the one before do not count for it
_SAVE_FAILURE: Final = f"""
INSERT INTO relaymail.mta_sts AS kept (domain, failed_id, failures, retry_at, last_error)
VALUES (%s, %s, 1, now() + {FIRST_RETRY} * interval '1 second', %s)
    ON CONFLICT (domain) DO UPDATE
   SET failures = CASE WHEN kept.failed_id = excluded.failed_id THEN kept.failures + 1 ELSE 1 END,
       retry_at = CASE WHEN kept.failed_id = excluded.failed_id
                       THEN now() + least({FIRST_RETRY} * 2 ^ least(kept.failures, 20), {LAST_RETRY})
                                    * interval '1 second'
                       ELSE excluded.retry_at END,
       failed_id = excluded.failed_id, last_error = excluded.last_error
"""

_PURGE: Final = """
DELETE FROM relaymail.mta_sts
 WHERE domain = ANY (ARRAY(
       SELECT domain FROM relaymail.mta_sts
        WHERE greatest(expires_at, retry_at) < now() - %s * interval '1 day' LIMIT %s))
"""


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """What is kept of one domain. Seconds are seen from now."""

    policy_id: str | None
    """``id=`` of the TXT record that the policy was fetched for."""
    policy: str | None
    """The policy's text; ``None``: none was ever fetched."""
    age: float | None
    """Seconds since it was fetched."""
    expires_in: float | None
    """Seconds until it expires; not above 0: it has."""
    failed_id: str | None
    """``id=`` of the last fetch, where that failed."""
    retry_in: float
    """Seconds before ``failed_id`` is to be fetched again; not above 0: now."""


async def read(database: Database, domain: str) -> KeptPolicy | None:
    """What is kept of ``domain`` (lower-case A-labels), expired or not."""
    found = await database.query("mta_sts.read", _READ, (domain,))
    return KeptPolicy(*found[0]) if found else None


async def save(database: Database, domain: str, policy_id: str, policy: str, max_age: int) -> None:
    """Keep a policy that was fetched just now for ``max_age`` seconds, in place of the one before."""
    await database.execute("mta_sts.save", _SAVE, (domain, policy_id, policy, max_age))


async def save_failure(database: Database, domain: str, policy_id: str, error: str) -> None:
    """Keep that a fetch failed, and with it when to try again; a policy that is there stays."""
    await database.execute("mta_sts.failure", _SAVE_FAILURE, (domain, policy_id, error[:ERROR_LIMIT]))


async def purge(database: Database, days: float, batch: int = PURGE_BATCH) -> int:
    """Forget policies that expired ``days`` ago and were not looked after since. Returns how many."""
    deleted = 0
    while True:
        gone = await database.execute("mta_sts.purge", _PURGE, (days, batch))
        deleted += gone
        if gone < batch:
            return deleted
