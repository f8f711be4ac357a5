"""The queue as an operator sees and changes it.

Everything here is a view or a function of schema ``relaymail``, which a database administrator may use as
well: the two cannot disagree.

Every function raises :class:`~relaymail.store.database.DatabaseError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from relaymail.store.database import Database

State = Literal["queued", "held", "delivered", "failed", "cancelled"]
STATES: Final[tuple[State, ...]] = ("queued", "held", "delivered", "failed", "cancelled")
WAITING: Final[tuple[State, ...]] = ("queued", "held")
BATCH: Final = 5000
"""Rows of one statement: it never holds the locks of more for long."""

_ROW: Final = """
SELECT id, message_id, state, sending, sender, recipient, destination, priority, queued_at, due_at,
       blocked_until, attempts, in_doubt, last_at, last_status, last_reply, last_host, warned_at, finished_at,
       owed_dsn, lease_owner, size_bytes, header_message_id, subject
  FROM relaymail.queue_view
"""
_ATTEMPTS: Final = """
SELECT message_id, queue_id, recipient, destination, number, started_at, ended_at, owner, phase, host,
       address, tls, outcome, status, reply, possible_duplicate
  FROM relaymail.attempts
"""
_DESTINATIONS: Final = """
SELECT destination, queued, held, sending, due, oldest_at, next_due_at, failures, blocked_since,
       blocked_until, reason, max_connections, max_recipients, relay_host, relay_port, tls_level, note
  FROM relaymail.destinations_view ORDER BY queued + held DESC, destination LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A row of ``relaymail.queue_view``."""

    id: int
    message_id: UUID
    state: State
    sending: bool
    """A worker has it right now."""
    sender: str
    recipient: str
    destination: str
    priority: int
    queued_at: datetime
    due_at: datetime
    blocked_until: datetime | None
    """The destination could not be reached and is left alone until then."""
    attempts: int
    in_doubt: bool
    last_at: datetime | None
    last_status: str | None
    last_reply: str | None
    last_host: str | None
    warned_at: datetime | None
    finished_at: datetime | None
    owed_dsn: str | None
    lease_owner: str | None
    size_bytes: int
    header_message_id: str
    subject: str


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """A row of ``relaymail.attempts``."""

    message_id: UUID
    queue_id: int
    recipient: str
    destination: str
    number: int
    started_at: datetime
    ended_at: datetime | None
    owner: str | None
    phase: str
    host: str | None
    address: str | None
    tls: str | None
    outcome: str
    """``delivered``, ``deferred``, ``failed``, ``running``, ``in doubt``."""
    status: str | None
    reply: str | None
    possible_duplicate: bool


@dataclass(frozen=True, slots=True)
class DestinationRow:
    """A row of ``relaymail.destinations_view``."""

    destination: str
    queued: int
    held: int
    sending: int
    due: int
    oldest_at: datetime | None
    next_due_at: datetime | None
    failures: int | None
    blocked_since: datetime | None
    blocked_until: datetime | None
    reason: str | None
    max_connections: int | None
    max_recipients: int | None
    relay_host: str | None
    relay_port: int | None
    tls_level: str | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows are meant; what is ``None`` or empty says nothing."""

    ids: Sequence[int] = ()
    messages: Sequence[UUID] = ()
    states: Sequence[State] = ()
    destination: str | None = None
    sender: str | None = None
    """``''`` is the null sender; case does not matter."""
    recipient: str | None = None

    def condition(self) -> tuple[str, tuple[object, ...]]:
        """A condition on ``queue_view``, and its parameters."""
        texts: list[str] = []
        values: list[object] = []
        if self.ids or self.messages:
            texts.append("(id = ANY (%s::bigint[]) OR message_id = ANY (%s::uuid[]))")
            values += [list(self.ids), list(self.messages)]
        if self.states:
            # As a list of constants, so that the partial indexes are of use
            texts.append(f"state IN ({', '.join(repr(state) for state in self.states)})")
        if self.destination is not None:
            texts.append("destination = %s")
            values.append(self.destination)
        for column, value in (("sender", self.sender), ("recipient", self.recipient)):
            if value is not None:
                texts.append(f"lower({column}) = lower(%s)")
                values.append(value)
        return " AND ".join(texts) or "true", tuple(values)


async def list_rows(database: Database, choice: Choice, limit: int) -> list[QueueRow]:
    """At most ``limit`` rows, those that were queued first at the front."""
    where, values = choice.condition()
    sql = f"{_ROW} WHERE {where} ORDER BY id LIMIT %s"
    found = await database.query("queue.list", sql, (*values, limit))
    return [QueueRow(*row) for row in found]


async def list_attempts(database: Database, ids: Sequence[int]) -> list[AttemptRow]:
    """The attempts of these rows, in their order."""
    sql = f"{_ATTEMPTS} WHERE queue_id = ANY (%s::bigint[]) ORDER BY queue_id, number"
    return [AttemptRow(*row) for row in await database.query("queue.attempts", sql, (list(ids),))]


async def list_destinations(database: Database, limit: int) -> list[DestinationRow]:
    """Where mail waits for, what is blocked and what has settings of its own; the longest lines first."""
    return [
        DestinationRow(*row) for row in await database.query("queue.destinations", _DESTINATIONS, (limit,))
    ]


async def find(database: Database, choice: Choice) -> list[int]:
    """The ids of all rows that are meant."""
    where, values = choice.condition()
    sql = f"SELECT id FROM relaymail.queue_view WHERE {where} ORDER BY id"
    return [row[0] for row in await database.query("queue.find", sql, values)]


async def retry(database: Database, ids: Sequence[int]) -> int:
    """Make rows due now; failed and cancelled ones begin a new life. Returns how many."""
    return await _call(database, "queue_retry", ids)


async def hold(database: Database, ids: Sequence[int]) -> int:
    """Keep queued rows back. Returns how many."""
    return await _call(database, "queue_hold", ids)


async def release(database: Database, ids: Sequence[int]) -> int:
    """Let held rows go on, with a new life. Returns how many."""
    return await _call(database, "queue_release", ids)


async def cancel(database: Database, ids: Sequence[int], reason: str | None = None) -> int:
    """Give up queued and held rows; the sender is told where there is a ``reason``. Returns how many."""
    return await _call(database, "queue_cancel", ids, reason)


async def reroute(database: Database, ids: Sequence[int], destination: str) -> int:
    """Send queued and held rows to another destination. Returns how many.

    :raises DatabaseError: 22023: this is no domain in lower-case A-labels, and no address literal.
    """
    return await _call(database, "queue_reroute", ids, destination)


async def _call(database: Database, function: str, ids: Sequence[int], *more: object) -> int:
    places = "".join(", %s" for _ in more)
    # Not a SELECT to begin with: what has been done once is not done again
    sql = f"WITH changed AS (SELECT relaymail.{function}(%s::bigint[]{places}) AS n) SELECT n FROM changed"
    changed = 0
    for start in range(0, len(ids), BATCH):
        batch = list(ids[start : start + BATCH])
        changed += (await database.query(f"queue.{function}", sql, (batch, *more)))[0][0]
    return changed
