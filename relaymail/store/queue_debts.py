"""Reports that senders are owed: drawn up, stored as messages, and struck off. No report is made twice.

A debt is recorded with the result it is about. The first to ask for it gives it the id its report will be
stored under, and from then on it has that id and those recipients: whoever makes the report again, because the
one before was killed, makes the same message, and the archive takes it for what it is, a resend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from relaymail.message.ids import uuid7
from relaymail.store.database import Database
from relaymail.store.queue_rows import Debt, OwedRecipient

LEASE: Final = 60.0
"""Seconds for which a debt is left to who asked for it; then it is given to the next."""

_OWED: Final = """
SELECT DISTINCT message_id FROM (
    SELECT message_id FROM relaymail.queue
     WHERE owed_dsn IS NOT NULL AND (dsn_due_at IS NULL OR dsn_due_at <= now())
     LIMIT %s FOR UPDATE SKIP LOCKED) AS owed
"""

# Rows that came to owe something since the id was given get an id of their own. No row is skipped because it is
# locked: the debt would be struck off without it
_TAKE: Final = """
WITH wanted AS (
    SELECT q.id, q.dsn_id, given.dsn_id AS new_id
      FROM unnest(%s::uuid[], %s::uuid[]) AS given (message_id, dsn_id)
      JOIN relaymail.queue AS q ON q.message_id = given.message_id
     WHERE q.owed_dsn IS NOT NULL AND (q.dsn_due_at IS NULL OR q.dsn_due_at <= now())
     ORDER BY q.id FOR UPDATE OF q
), taken AS (
    UPDATE relaymail.queue AS q
       SET dsn_id = coalesce(w.dsn_id, w.new_id), dsn_due_at = now() + %s * interval '1 second'
      FROM wanted AS w WHERE q.id = w.id
    RETURNING q.*
)
SELECT t.dsn_id, t.message_id, m.reverse_path, m.mail_parameters, m.received_at, m.size_bytes, m.listener,
       m.login_user_id, t.id, t.n, t.recipient, r.parameters, t.owed_dsn, t.last_status, t.last_reply,
       t.last_host, t.destination, t.attempts, t.queued_at, t.last_at
  FROM taken AS t
  JOIN relaymail.message AS m ON m.id = t.message_id
  LEFT JOIN relaymail.envelope_recipient AS r ON r.message_id = t.message_id AND r.n = t.n
 ORDER BY t.dsn_id, t.n
"""

# Fenced by the id: a failure that came behind the warning of a delay is a debt of its own
_CLEAR: Final = """
WITH cleared AS (
    UPDATE relaymail.queue SET owed_dsn = NULL, dsn_id = NULL, dsn_due_at = NULL
     WHERE message_id = %s AND dsn_id = %s
    RETURNING message_id
)
INSERT INTO relaymail.event (message_id, kind, detail)
SELECT DISTINCT message_id, %s, %s::json FROM cleared
"""


class QueueDebts:
    """What is owed. Raises :class:`~relaymail.store.database.DatabaseError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def owed(self, limit: int = 50, *, lease: float = LEASE) -> list[Debt]:
        """Take up to ``limit`` rows' debts, grouped by message; for ``lease`` seconds nobody else gets them.

        One that is not cleared by then is given out again, with the same id.
        """
        found = await self._database.query("queue.owed", _OWED, (limit,))
        if not found:
            return []
        messages = [row[0] for row in found]
        rows = await self._database.query("queue.owe", _TAKE, (messages, [uuid7() for _ in messages], lease))
        return [_debt(list(group)) for _, group in groupby(rows, key=lambda row: row[0])]

    async def clear(
        self, debt: Debt, detail: Mapping[str, object] | None = None, *, made: bool = True
    ) -> bool:
        """Strike a debt off, once its report is stored; the message has an event of it: ``reported``.

        :param made: false for a report that is not made, such as one to the null sender: ``unreported``.
        :param detail: for the event, beside the recipients and the id of the report; becomes JSON.
        Returns whether it was still owed.
        """
        about: dict[str, object] = {
            "recipients": [{"address": r.address, "action": r.action} for r in debt.recipients]
        }
        if made:
            about["dsn_id"] = str(debt.dsn_id)
        text = msgspec.json.encode({**about, **(detail or {})}).decode()
        kind = "reported" if made else "unreported"
        done = await self._database.execute("queue.clear", _CLEAR, (debt.message_id, debt.dsn_id, kind, text))
        return done > 0


def _debt(rows: Sequence[tuple[Any, ...]]) -> Debt:
    dsn_id, message_id, reverse_path, parameters, received_at, size, listener, user, *_ = rows[0]
    recipients = tuple(_recipient(row[8:]) for row in rows)
    return Debt(
        dsn_id, message_id, reverse_path, parameters or {}, received_at, size, listener, user, recipients
    )


def _recipient(columns: Sequence[Any]) -> OwedRecipient:
    id, n, address, parameters, *rest = columns
    return OwedRecipient(id, n, address, parameters or {}, *rest)
