"""The outbox of notifications: claimed under a lease, settled once, never lost.

A row is written by the transaction that stores a message. A worker claims rows for a while (the lease), sends
them, and settles them under the token of its claim: a worker that was too late, and whose row another one
holds by now, changes nothing. What a killed worker had claimed can be claimed again when the lease ends. All
times are PostgreSQL's.

Every function raises :class:`~relaymail.store.database.DatabaseError`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from relaymail.store.database import Database

CHANNEL = "relaymail_outbox"
"""LISTEN channel that wakes the notifiers."""

COUNT_LIMIT = 100_000
"""Counting stops here: nobody needs the exact length of a queue that long, and it is asked for often."""

RETRY_BATCH = 5000
"""Rows of one statement of :func:`retry_all`: it never holds the locks of more for long."""

State = Literal["pending", "sent", "dead"]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One claimed notification."""

    id: int
    message_id: uuid.UUID
    email_id: uuid.UUID
    payload: str
    """The body of the POST, complete."""
    attempts: int
    """Attempts made so far."""
    age: float
    """Seconds since the row was written, or since the operator's last retry."""
    token: uuid.UUID


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A claimed row whose attempt failed."""

    row: OutboxRow
    error: str
    delay: float = 0.0
    """Seconds until the next attempt."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One row as an operator sees it."""

    id: int
    message_id: uuid.UUID
    email_id: uuid.UUID
    state: State
    attempts: int
    created_at: datetime
    due_at: datetime
    finished_at: datetime | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    """How much waits; ``pending``, ``due`` and ``dead`` are exact up to :data:`COUNT_LIMIT`."""

    pending: int
    due: int
    dead: int
    oldest_due_seconds: float
    """How long the most overdue row has been waiting; 0 when none is due."""


# The array makes the planner run the locking subquery once; as a join it may run it once per row.
_CLAIM = """
UPDATE relaymail.outbox
   SET lease_until = now() + %s * interval '1 second', lease_token = %s::uuid
 WHERE id = ANY (ARRAY(
       SELECT id FROM relaymail.outbox
        WHERE state = 'pending' AND due_at <= now() AND (lease_until IS NULL OR lease_until < now())
        ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED))
RETURNING id, message_id, email_id, payload::text, attempts,
          extract(epoch FROM now() - coalesce(retried_at, created_at))::float8,
          lease_token
"""

_MARK_SENT = """
WITH sent AS (
    UPDATE relaymail.outbox AS o
       SET state = 'sent', attempts = o.attempts + 1, finished_at = now(), last_error = NULL,
           lease_until = NULL, lease_token = NULL
      FROM unnest(%s::bigint[], %s::uuid[]) AS mine (id, token)
     WHERE o.id = mine.id AND o.lease_token = mine.token AND o.state = 'pending'
    RETURNING o.message_id, o.email_id
)
INSERT INTO relaymail.event (message_id, kind, detail)
SELECT message_id, 'notified', json_build_object('email_id', email_id) FROM sent
"""

_DEFER = """
UPDATE relaymail.outbox AS o
   SET attempts = o.attempts + 1, due_at = now() + mine.delay * interval '1 second', last_error = mine.error,
       lease_until = NULL, lease_token = NULL
  FROM unnest(%s::bigint[], %s::uuid[], %s::float8[], %s::text[]) AS mine (id, token, delay, error)
 WHERE o.id = mine.id AND o.lease_token = mine.token AND o.state = 'pending'
"""

_BURY = """
UPDATE relaymail.outbox AS o
   SET state = 'dead', attempts = o.attempts + 1, finished_at = now(), last_error = mine.error,
       lease_until = NULL, lease_token = NULL
  FROM unnest(%s::bigint[], %s::uuid[], %s::text[]) AS mine (id, token, error)
 WHERE o.id = mine.id AND o.lease_token = mine.token AND o.state = 'pending'
"""

_RELEASE = """
UPDATE relaymail.outbox AS o SET lease_until = NULL, lease_token = NULL
  FROM unnest(%s::bigint[], %s::uuid[]) AS mine (id, token)
 WHERE o.id = mine.id AND o.lease_token = mine.token AND o.state = 'pending'
"""

_RETRY = """
WITH again AS (
    UPDATE relaymail.outbox
       SET state = 'pending', due_at = now(), retried_at = now(), attempts = 0, finished_at = NULL
     WHERE {which}
    RETURNING 1
)
SELECT count(*), pg_notify(%s, '') FROM again
"""

_COUNTS = f"""
SELECT (SELECT count(*) FROM (
            SELECT 1 FROM relaymail.outbox WHERE state = 'pending' LIMIT {COUNT_LIMIT}) AS pending),
       (SELECT count(*) FROM (
            SELECT 1 FROM relaymail.outbox WHERE state = 'pending' AND due_at <= now()
             LIMIT {COUNT_LIMIT}) AS due),
       (SELECT count(*) FROM (
            SELECT 1 FROM relaymail.outbox WHERE state = 'dead' LIMIT {COUNT_LIMIT}) AS dead),
       coalesce((SELECT greatest(0, extract(epoch FROM now() - min(due_at)))
                   FROM relaymail.outbox WHERE state = 'pending'), 0)::float8
"""

# Ids grow with time and nothing finishes before it was created: the walk along the primary key may stop at
# the first batch that holds a row younger than the limit, and needs no index on finished_at.
_PURGE = """
WITH batch AS MATERIALIZED (
    SELECT id, created_at, finished_at FROM relaymail.outbox WHERE id > %s ORDER BY id LIMIT %s
), gone AS (
    DELETE FROM relaymail.outbox AS o USING batch
     WHERE o.id = batch.id AND o.state <> 'pending'
       AND batch.finished_at < now() - %s * interval '1 day' AND o.finished_at = batch.finished_at
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), coalesce(max(created_at) < now() - %s * interval '1 day', false)
  FROM batch
"""

_ENTRY = """
SELECT id, message_id, email_id, state, attempts, created_at, due_at, finished_at, last_error
  FROM relaymail.outbox"""

# Each order is one that an index gives: pending by due time, dead oldest first, all and sent newest first.
_LIST: dict[State | None, str] = {
    None: f"{_ENTRY} ORDER BY id DESC LIMIT %s",
    "sent": f"{_ENTRY} WHERE state = 'sent' ORDER BY id DESC LIMIT %s",
    "pending": f"{_ENTRY} WHERE state = 'pending' ORDER BY due_at, id LIMIT %s",
    "dead": f"{_ENTRY} WHERE state = 'dead' ORDER BY id LIMIT %s",
}


_ALL: dict[Literal["pending", "dead"], str] = {
    "pending": "SELECT id FROM relaymail.outbox WHERE state = 'pending' AND due_at > now()"
    " ORDER BY due_at LIMIT %s",
    "dead": "SELECT id FROM relaymail.outbox WHERE state = 'dead' ORDER BY id LIMIT %s",
}


async def claim(database: Database, limit: int, lease_seconds: float) -> list[OutboxRow]:
    """Claim up to ``limit`` due rows, the longest due first, for ``lease_seconds``."""
    found = await database.query("outbox.claim", _CLAIM, (lease_seconds, uuid.uuid4(), limit))
    found.sort(key=lambda row: row[0])
    return [OutboxRow(*row) for row in found]


async def mark_sent(database: Database, rows: Sequence[OutboxRow]) -> int:
    """Settle rows that the API has taken, with their ``notified`` events. Returns how many were ours."""
    return await database.execute("outbox.mark_sent", _MARK_SENT, _keys(rows))


async def defer(database: Database, failures: Sequence[FailedRow]) -> int:
    """Count a failed attempt and make each row due again after its delay. Returns how many were ours."""
    delays = [failure.delay for failure in failures]
    errors = [failure.error for failure in failures]
    parameters = (*_keys([failure.row for failure in failures]), delays, errors)
    return await database.execute("outbox.defer", _DEFER, parameters)


async def bury(database: Database, failures: Sequence[FailedRow]) -> int:
    """Give up on rows: state ``dead``, kept for :func:`retry`. Returns how many were still ours."""
    errors = [failure.error for failure in failures]
    parameters = (*_keys([failure.row for failure in failures]), errors)
    return await database.execute("outbox.bury", _BURY, parameters)


async def release(database: Database, rows: Sequence[OutboxRow]) -> int:
    """Give unused leases back, without counting an attempt. Returns how many were still ours."""
    return await database.execute("outbox.release", _RELEASE, _keys(rows))


# While the API is away one notification at a time is tried: thousands may wait without an error of their own
_LAST_ERROR = """
SELECT last_error FROM relaymail.outbox
 WHERE state = 'pending' AND last_error IS NOT NULL ORDER BY due_at DESC LIMIT 1
"""


async def list_rows(database: Database, state: State | None = None, limit: int = 100) -> list[OutboxEntry]:
    """Rows in a state: ``pending`` by due time, ``dead`` oldest first; ``sent`` and all newest first."""
    found = await database.query("outbox.list", _LIST[state], (limit,))
    return [OutboxEntry(*row) for row in found]


async def retry(database: Database, ids: Sequence[int]) -> int:
    """Make these pending or dead rows due now, with a new life; sent ones stay sent. Returns how many."""
    return await _retry(database, "id = ANY (%s::bigint[]) AND state IN ('pending', 'dead')", (list(ids),))


async def retry_all(database: Database, state: Literal["pending", "dead"] = "dead") -> int:
    """Make all dead rows (or all that wait for a later time) due now, with a new life. Returns how many."""
    total = 0
    while True:
        count = await _retry(database, f"id = ANY (ARRAY({_ALL[state]}))", (RETRY_BATCH,))
        total += count
        if count < RETRY_BATCH:
            return total


async def last_error(database: Database) -> str | None:
    """Why one of those that wait was not sent, of the try that was last put off; ``None``: none was tried."""
    found = await database.query("outbox.last_error", _LAST_ERROR)
    return found[0][0] if found else None


async def counts(database: Database) -> OutboxCounts:
    """How many rows wait, are due (in flight or not) and are dead, and since when the oldest is due."""
    found = await database.query("outbox.counts", _COUNTS)
    return OutboxCounts(*found[0])


async def purge(database: Database, days: float, batch: int = 1000) -> int:
    """Delete what was sent or died more than ``days`` ago, ``batch`` rows a time. Returns how many."""
    deleted, after, more = 0, 0, True
    while more:
        found = await database.query("outbox.purge", _PURGE, (after, batch, days, days))
        gone, last, more = found[0]
        deleted += gone
        after = last or after
    return deleted


async def _retry(database: Database, which: str, parameters: tuple[object, ...]) -> int:
    found = await database.query("outbox.retry", _RETRY.format(which=which), (*parameters, CHANNEL))
    return int(found[0][0])


def _keys(rows: Sequence[OutboxRow]) -> tuple[list[int], list[uuid.UUID]]:
    return [row.id for row in rows], [row.token for row in rows]
