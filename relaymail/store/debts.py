"""Reports owed to senders: claimed under a lease, each with the id that it will be stored under.

A row of the queue owes a report once what became of it is written (``owed_dsn``). A claim puts the rows of
one message that owe the same together and stamps them with the id of their report, before there is one: who
makes it again after a crash makes it of the same recipients under the same id, and finds it stored.

Every function raises :class:`~relaymail.store.database.DatabaseError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from relaymail.message.dsn_request import Action
from relaymail.message.ids import uuid7
from relaymail.store.database import Database

GATHER: Final = 10.0
"""Seconds for which a report waits for more recipients of the same message, while some are being tried."""
MOST_RECIPIENTS: Final = 200
"""Recipients in one report."""

_CLAIM_LOCK: Final = 0x72656C61796D6473
"""Key of the advisory lock of claims, "relaymds" in ASCII: two at once would cut a report in two."""

# What is rechecked when a row was changed between the look and the lock stands in the lateral query
_CLAIM: Final = """
WITH turn AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(%s) AS ours),
owing AS MATERIALIZED (
    SELECT g.*, row_number() OVER () AS place FROM (
        SELECT q.message_id, q.owed_dsn, q.dsn_id
          FROM relaymail.queue AS q
         WHERE q.owed_dsn IS NOT NULL AND (q.dsn_due_at IS NULL OR q.dsn_due_at <= now())
           AND (SELECT ours FROM turn)
         GROUP BY q.message_id, q.owed_dsn, q.dsn_id
        HAVING q.dsn_id IS NOT NULL
            OR coalesce(min(q.last_at), '-infinity') <= now() - %s * interval '1 second'
            OR NOT EXISTS (SELECT FROM relaymail.queue AS o
                            WHERE o.message_id = q.message_id AND o.state = 'queued'
                              AND (o.attempts = 0 OR o.lease_token IS NOT NULL))
         LIMIT %s) AS g
), taken AS MATERIALIZED (
    SELECT q.id, coalesce(g.dsn_id, (%s::uuid[])[g.place]) AS report
      FROM owing AS g
     CROSS JOIN LATERAL (
           SELECT id FROM relaymail.queue
            WHERE message_id = g.message_id AND owed_dsn = g.owed_dsn AND dsn_id IS NOT DISTINCT FROM g.dsn_id
              AND (dsn_due_at IS NULL OR dsn_due_at <= now())
            ORDER BY n LIMIT %s FOR UPDATE SKIP LOCKED) AS q
), stamped AS (
    UPDATE relaymail.queue AS q SET dsn_id = t.report, dsn_due_at = now() + %s * interval '1 second'
      FROM taken AS t WHERE q.id = t.id
    RETURNING q.*
)
SELECT s.dsn_id, s.owed_dsn, s.message_id, m.reverse_path, m.mail_parameters, m.received_at, m.login_user_id,
       m.message_id, m.subject, m.size_bytes, s.recipient, r.parameters, coalesce(s.last_status, ''),
       s.last_reply, s.last_host, s.last_at, s.queued_at
  FROM stamped AS s
  JOIN relaymail.message AS m ON m.id = s.message_id
  LEFT JOIN relaymail.envelope_recipient AS r ON r.message_id = s.message_id AND r.n = s.n
 ORDER BY s.dsn_id, s.n
"""

_CLEAR: Final = """
WITH cleared AS (
    UPDATE relaymail.queue AS q
       SET owed_dsn = NULL, dsn_due_at = NULL, dsn_id = CASE WHEN d.why IS NULL THEN q.dsn_id END
      FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[]) AS d (message_id, report, action, why)
     WHERE q.message_id = d.message_id AND q.owed_dsn = d.action AND q.dsn_id = d.report
    RETURNING q.message_id, d.report, d.action, d.why
)
INSERT INTO relaymail.event (message_id, kind, detail)
SELECT message_id, CASE WHEN why IS NULL THEN 'reported' ELSE 'not reported' END,
       json_strip_nulls(json_build_object('action', action, 'report', CASE WHEN why IS NULL THEN report END,
                                          'recipients', count(*), 'why', why))
  FROM cleared GROUP BY message_id, report, action, why
"""


@dataclass(frozen=True, slots=True)
class OwedRecipient:
    """One recipient whose sender is to hear of it."""

    address: str
    parameters: Mapping[str, str | None]
    """RCPT parameters by upper-case name."""
    status: str
    """Enhanced status code; ``''`` where none is known."""
    reply: str | None
    """The next host's exact reply, its lines parted by LF; or why there was none."""
    host: str | None
    attempted_at: datetime | None
    queued_at: datetime
    """Its life counts from here."""


@dataclass(frozen=True, slots=True)
class Debt:
    """A report owed: what became of some recipients of a message."""

    report_id: UUID
    """The id to store it under; the same at each claim."""
    action: Action
    message_id: UUID
    reverse_path: str
    parameters: Mapping[str, str | None]
    """MAIL parameters by upper-case name."""
    received_at: datetime
    login_user_id: UUID | None
    header_message_id: str
    """The original's Message-ID without ``<>``."""
    subject: str
    size: int
    recipients: tuple[OwedRecipient, ...]


async def claim(database: Database, limit: int, lease: float, *, gather: float = GATHER) -> list[Debt]:
    """At most ``limit`` reports to be made within ``lease`` seconds; later another may be at them.

    A report waits ``gather`` seconds for more recipients, while some of its message are being tried.
    """
    ids = [uuid7() for _ in range(limit)]
    rows = await database.query(
        "debts.claim", _CLAIM, (_CLAIM_LOCK, gather, limit, ids, MOST_RECIPIENTS, lease)
    )
    found: dict[UUID, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return [_debt(rows) for rows in found.values()]


async def paid(database: Database, debts: Sequence[Debt]) -> None:
    """These reports are stored; what happened meanwhile to a recipient may owe another one."""
    await _clear(database, debts, None)


async def dropped(database: Database, debts: Sequence[Debt], why: str) -> None:
    """These reports will never be made; ``why`` is for the events of the original."""
    await _clear(database, debts, why)


async def _clear(database: Database, debts: Sequence[Debt], why: str | None) -> None:
    messages, reports, actions = (
        [debt.message_id for debt in debts],
        [debt.report_id for debt in debts],
        [debt.action for debt in debts],
    )
    await database.execute("debts.clear", _CLEAR, (messages, reports, actions, [why] * len(debts)))


def _debt(rows: Sequence[tuple[Any, ...]]) -> Debt:
    report, action, message, sender, parameters, received, login, header_id, subject, size = rows[0][:10]
    recipients = tuple(OwedRecipient(row[10], row[11] or {}, *row[12:]) for row in rows)
    return Debt(
        report,
        action,
        message,
        sender,
        parameters or {},
        received,
        login,
        header_id,
        subject,
        size,
        recipients,
    )
