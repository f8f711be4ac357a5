"""How the queue is: counts for the health check, metrics and status pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from relaymail.store.database import Database

COUNT_LIMIT: Final = 100_000
"""Counting stops here: nobody needs the exact length of a queue that long, and it is asked for often."""
STALLED: Final = 600.0
"""Seconds after the end of a lease when nobody claims the row again."""

_COUNTS: Final = f"""
SELECT (SELECT count(*) FROM (
            SELECT FROM relaymail.queue WHERE state = 'queued' LIMIT {COUNT_LIMIT}) AS queued),
       (SELECT count(*) FROM (
            SELECT FROM relaymail.queue WHERE state = 'held' LIMIT {COUNT_LIMIT}) AS held),
       (SELECT count(*) FROM relaymail.queue
         WHERE state = 'queued' AND lease_token IS NOT NULL AND due_at > now()),
       (SELECT count(*) FROM (
            SELECT FROM relaymail.queue
             WHERE state = 'queued' AND lease_token IS NOT NULL AND due_at < now() - make_interval(secs => %s)
             LIMIT {COUNT_LIMIT}) AS stalled),
       (SELECT count(*) FROM (
            SELECT FROM relaymail.queue WHERE state = 'queued' AND attempts >= 3
             LIMIT {COUNT_LIMIT}) AS tried),
       (SELECT count(*) FROM (
            SELECT FROM relaymail.queue WHERE owed_dsn IS NOT NULL LIMIT {COUNT_LIMIT}) AS owed),
       (SELECT count(*) FROM relaymail.blocked),
       coalesce((SELECT greatest(0, extract(epoch FROM now() - min(queued_at)))
                   FROM relaymail.queue WHERE state = 'queued'), 0)::float8
"""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """The queue at a moment; the counts are exact up to :data:`COUNT_LIMIT`."""

    queued: int
    """Rows that wait or are being sent."""
    held: int
    sending: int
    """Rows under a lease."""
    stalled: int
    """Rows whose lease ended ten minutes ago, and nobody has claimed them since."""
    tried: int
    """Queued rows with three tries and more."""
    owed: int
    """Rows of which a report is still to be made."""
    blocked: int
    """Destinations that could not be reached."""
    oldest_seconds: float
    """Age of the oldest queued row; 0 where there is none."""


async def queue_counts(database: Database) -> QueueCounts:
    """Look, once.

    :raises DatabaseError: the database failed.
    """
    return QueueCounts(*(await database.query("queue.counts", _COUNTS, (STALLED,)))[0])


# A lease moves due_at to its end, so that what is being sent is not due. What is for a destination that is
# left alone for a while waits on purpose.
_OVERDUE: Final = f"""
WITH due AS (
    SELECT due_at FROM relaymail.queue AS q
     WHERE state = 'queued' AND due_at <= now()
       AND NOT EXISTS (SELECT FROM relaymail.blocked AS b
                        WHERE b.destination = q.destination AND b.blocked_until > now())
     LIMIT {COUNT_LIMIT})
SELECT count(*), coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8 FROM due
"""


async def queue_overdue(database: Database) -> tuple[int, float]:
    """How many rows could be sent now, up to :data:`COUNT_LIMIT`, and the seconds the longest has waited.

    :raises DatabaseError: the database failed.
    """
    count, seconds = (await database.query("queue.overdue", _OVERDUE))[0]
    return count, seconds
