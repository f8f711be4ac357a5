"""Deleting what the queue is done with, and messages over age, but none that is still to be sent."""

from __future__ import annotations

from typing import Final

from relaymail.store.database import Database, Transaction

# Ids grow with time and nothing is finished before it was queued: behind a batch without an old row there is
# none. A row that was retried is younger than its id says, so one old row is enough to go on.
_ROWS: Final = """
WITH batch AS MATERIALIZED (
    SELECT id, queued_at FROM relaymail.queue WHERE id > %s ORDER BY id LIMIT %s
), gone AS (
    DELETE FROM relaymail.queue AS q USING batch
     WHERE q.id = batch.id AND q.state IN ('delivered', 'failed', 'cancelled') AND q.owed_dsn IS NULL
       AND q.finished_at < now() - make_interval(secs => %s)
    RETURNING q.id
), attempts AS (
    DELETE FROM relaymail.attempt AS a USING gone WHERE a.queue_id = gone.id
)
SELECT (SELECT count(*) FROM gone), max(id),
       coalesce(min(queued_at) < now() - make_interval(secs => %s), false)
  FROM batch
"""

# Still to be sent, to be reported on, or not yet shown to its local recipients
_WANTED: Final = """
    (m.release_at IS NOT NULL AND m.released_at IS NULL
     OR EXISTS (SELECT FROM relaymail.queue AS q
                 WHERE q.message_id = m.id AND (q.state IN ('queued', 'held') OR q.owed_dsn IS NOT NULL)))
"""
_OLD: Final = f"""
SELECT m.id FROM relaymail.message AS m
 WHERE m.received_at < now() - make_interval(secs => %s) AND NOT {_WANTED}
 LIMIT %s FOR UPDATE SKIP LOCKED
"""
_MESSAGES: Final = f"""
WITH gone AS (
    DELETE FROM relaymail.message AS m WHERE m.id = ANY (%s::uuid[]) AND NOT {_WANTED} RETURNING m.id
), attempts AS (
    DELETE FROM relaymail.attempt AS a USING relaymail.queue AS q, gone
     WHERE q.message_id = gone.id AND a.queue_id = q.id
)
SELECT count(*) FROM gone
"""


async def purge_rows(database: Database, age: float, batch: int) -> int:
    """Delete rows that were finished more than ``age`` seconds ago, with their attempts. Returns how many.

    :raises DatabaseError: the database failed; what was deleted before is deleted.
    """
    deleted, after, more = 0, 0, True
    while more:
        found = await database.query("queue.purge", _ROWS, (after, batch, age, age))
        gone, last, more = found[0]
        deleted += gone
        after = last or after
    return deleted


async def purge_messages(database: Database, age: float, batch: int) -> int:
    """Delete messages that came in more than ``age`` seconds ago and are not needed now. Returns how many.

    They are locked first and then looked at again: a retry that begins meanwhile finds none, or keeps it.

    :raises DatabaseError: the database failed; what was deleted before is deleted.
    """

    async def one_batch(transaction: Transaction) -> int:
        old = [row[0] for row in await transaction.query(_OLD, (age, batch))]
        return int((await transaction.query(_MESSAGES, (old,)))[0][0]) if old else 0

    total = 0
    while deleted := await database.transaction("retention.messages", one_batch):
        total += deleted
    return total
