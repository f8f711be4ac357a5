"""Tells senders of a delay whose recipients nobody has tried for hours: their destination is blocked."""

from __future__ import annotations

from typing import Final

from relaymail.store.database import Database

# A report of a delay is for our own users, once, and not where NOTIFY was given without DELAY (RFC 3461 4.1).
# What is passed over is marked as well, or it would be looked at for ever.
_WARN: Final = """
WITH late AS (
    SELECT id FROM relaymail.queue
     WHERE state = 'queued' AND warned_at IS NULL AND queued_at < now() - make_interval(secs => %s)
       AND (lease_token IS NULL OR due_at <= now())
     ORDER BY queued_at LIMIT %s FOR UPDATE SKIP LOCKED
), warned AS (
    UPDATE relaymail.queue AS q
       SET warned_at = now(),
           owed_dsn = CASE WHEN w.wanted THEN 'delayed' ELSE q.owed_dsn END,
           dsn_id = CASE WHEN w.wanted THEN NULL ELSE q.dsn_id END,
           dsn_due_at = CASE WHEN w.wanted THEN NULL ELSE q.dsn_due_at END,
           last_status = coalesce(q.last_status, CASE WHEN w.wanted THEN '4.4.1' END),
           last_reply = coalesce(q.last_reply, w.reason)
      FROM (SELECT q.id, b.reason,
                   q.owed_dsn IS NULL AND m.login_user_id IS NOT NULL AND m.reverse_path <> ''
                   AND ((r.parameters ->> 'NOTIFY') IS NULL
                        OR 'DELAY' = ANY (string_to_array(upper(r.parameters ->> 'NOTIFY'), ','))) AS wanted
              FROM late
              JOIN relaymail.queue AS q ON q.id = late.id
              JOIN relaymail.message AS m ON m.id = q.message_id
              LEFT JOIN relaymail.envelope_recipient AS r ON r.message_id = q.message_id AND r.n = q.n
              LEFT JOIN relaymail.blocked AS b ON b.destination = q.destination) AS w
     WHERE q.id = w.id
    RETURNING w.wanted
)
SELECT count(*), count(*) FILTER (WHERE wanted) FROM warned
"""


async def warn_of_delays(database: Database, age: float, limit: int) -> tuple[int, int]:
    """Make queued rows owe a report of their delay that were queued more than ``age`` seconds ago.

    Returns how many rows were looked at, at most ``limit``, and of how many a report is owed now. Rows that
    are being tried are left to the try.

    :raises DatabaseError: the database failed.
    """
    rows = await database.query("queue.warn", _WARN, (age, limit))
    return int(rows[0][0]), int(rows[0][1])
