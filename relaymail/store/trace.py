"""Everything that happened to a message, in order of time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from relaymail.store.archive import Archive, ArchiveError, MessageDetail
from relaymail.store.database import Database
from relaymail.store.queue_admin import AttemptRow, Choice, QueueRow, list_attempts, list_rows

MOST_RECIPIENTS: Final = 10_000
NAMED: Final = 10
"""Messages named where several have the same Message-ID."""
_WINDOWS: Final = (2 * 86400, 30 * 86400, None)
"""Seconds back in which a Message-ID is looked for, one after the other. There is no index for it, as that
would cost every accepted message; but ids begin with the time: a window is a part of the primary key."""

_BY_HEADER: Final = """
SELECT id FROM relaymail.message
 WHERE message_id = %s AND id >= (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - %s), 12, '0')
                                  || repeat('0', 20))::uuid
 ORDER BY id DESC LIMIT %s
"""
_BY_HEADER_EVER: Final = "SELECT id FROM relaymail.message WHERE message_id = %s ORDER BY id DESC LIMIT %s"
_QUEUE_ID: Final = re.compile("[1-9][0-9]{0,18}")
"""The id of a message begins with a zero until the year 2527."""


@dataclass(frozen=True, slots=True)
class TraceEntry:
    """Something that happened, or that is to happen."""

    at: datetime
    what: str
    recipient: str | None
    text: str
    """One sentence for people."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for programs."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A message and what happened to it."""

    id: UUID
    header_message_id: str
    sender: str
    subject: str
    size_bytes: int
    entries: list[TraceEntry]


async def resolve(database: Database, text: str) -> UUID:
    """The message that has this id (or one that begins so), this Message-ID, or this row in the queue.

    :raises ArchiveError: there is none, or there are several.
    :raises DatabaseError: the database failed.
    """
    text = text.strip()
    if _QUEUE_ID.fullmatch(text):
        rows = await database.query(
            "trace.row", "SELECT message_id FROM relaymail.queue WHERE id = %s", (int(text),)
        )
        if not rows:
            raise ArchiveError(f"There is no row {text} in the queue: `relaymail queue list` shows them.")
        return UUID(str(rows[0][0]))
    if "@" in text or text.startswith("<"):
        return await _by_header(database, text.removeprefix("<").removesuffix(">"))
    return await Archive(database).resolve(text)


async def _by_header(database: Database, header_id: str) -> UUID:
    for window in _WINDOWS:
        if window is None:
            rows = await database.query("trace.header", _BY_HEADER_EVER, (header_id, NAMED))
        else:
            rows = await database.query("trace.header", _BY_HEADER, (header_id, window * 1000, NAMED))
        if len(rows) > 1:
            found = ", ".join(str(row[0]) for row in rows)
            raise ArchiveError(f"Several messages have the Message-ID <{header_id}>, give one's id: {found}")
        if rows:
            return UUID(str(rows[0][0]))
    raise ArchiveError(f"There is no message with the Message-ID <{header_id}>.")


async def trace(database: Database, message_id: UUID) -> Trace:
    """What happened to a message.

    :raises ArchiveError: there is none.
    :raises DatabaseError: the database failed.
    """
    detail = await Archive(database).show(message_id)
    rows = await list_rows(database, Choice(messages=[message_id]), MOST_RECIPIENTS)
    attempts = await list_attempts(database, [row.id for row in rows])
    entries = [*_of_message(detail), *_of_notifications(detail)]
    for row in rows:
        entries += _of_row(row)
    entries += [_of_attempt(attempt) for attempt in attempts]
    # The sort is stable: what has the same time stays in the order of its making
    entries.sort(key=lambda entry: entry.at)
    return Trace(
        detail.id, detail.message_id, detail.reverse_path, detail.subject, detail.size_bytes, entries
    )


def _of_message(detail: MessageDetail) -> list[TraceEntry]:
    entries: list[TraceEntry] = []
    accepted = [event.at for event in detail.events if event.kind == "accepted"]
    facts = {
        "listener": detail.listener,
        "session_id": detail.session_id,
        "client_address": detail.client_address,
        "client_name": detail.client_name,
        "login_user_id": detail.login_user_id,
        "tls_version": detail.tls_version,
        "tls_cipher": detail.tls_cipher,
        "recipients": [recipient.address for recipient in detail.recipients],
    }
    tls = f"{detail.tls_version} {detail.tls_cipher}" if detail.tls_version else "in clear"
    login = f" as user {detail.login_user_id}" if detail.login_user_id else ""
    text = (
        f"on {detail.listener} from {detail.client_address} ({detail.client_name}){login}, {tls}, session"
        f" {detail.session_id}: <{detail.reverse_path}> to {len(detail.recipients)} recipients,"
        f" {detail.size_bytes} octets"
    )
    # The event has PostgreSQL's time, as all else
    entries.append(TraceEntry(min(accepted, default=detail.received_at), "accepted", None, text, facts))
    for event in detail.events:
        if event.kind != "accepted":
            about = event.detail if isinstance(event.detail, dict) else {}
            words = ", ".join(f"{name} {value}" for name, value in about.items())
            entries.append(TraceEntry(event.at, event.kind, None, words, about))
    return entries


def _of_notifications(detail: MessageDetail) -> list[TraceEntry]:
    """Those that were sent have an event."""
    entries: list[TraceEntry] = []
    for row in detail.outbox:
        facts = {"id": row.id, "email_id": row.email_id, "attempts": row.attempts, "error": row.last_error}
        text = f"notification {row.id}, {row.attempts} tries: {row.last_error or 'not tried'}"
        if row.state == "dead":
            at = row.finished_at or row.due_at
            entries.append(TraceEntry(at, "notification given up", None, text, facts))
        elif row.state == "pending":
            entries.append(TraceEntry(row.due_at, "notification due", None, text, facts))
    return entries


def _of_row(row: QueueRow) -> list[TraceEntry]:
    facts = {"id": row.id, "destination": row.destination, "priority": row.priority}
    entries = [
        TraceEntry(row.queued_at, "queued", row.recipient, f"row {row.id} for {row.destination}", facts)
    ]
    if row.warned_at is not None:
        entries.append(TraceEntry(row.warned_at, "delay noted", row.recipient, "the sender is told of it"))
    if row.owed_dsn is not None:
        at = row.finished_at or row.last_at or row.queued_at
        entries.append(
            TraceEntry(at, "report owed", row.recipient, row.owed_dsn, {"id": row.id, "action": row.owed_dsn})
        )
    if row.state == "cancelled" and row.finished_at is not None:
        entries.append(
            TraceEntry(row.finished_at, "cancelled", row.recipient, "by the operator", {"id": row.id})
        )
    if row.state == "held":
        entries.append(TraceEntry(row.due_at, "held", row.recipient, "until it is released", {"id": row.id}))
    if row.state == "queued":
        what = "lease ends" if row.sending else "next try"
        blocked = row.blocked_until is not None and row.blocked_until > row.due_at
        at = row.blocked_until if row.blocked_until is not None and blocked else row.due_at
        text = f"{row.destination} could not be reached and is left alone" if blocked else ""
        entries.append(TraceEntry(at, what, row.recipient, text, {"id": row.id, "owner": row.lease_owner}))
    return entries


def _of_attempt(attempt: AttemptRow) -> TraceEntry:
    place = attempt.host or "no host"
    if attempt.address:
        place += f" [{attempt.address}]"
    tls = attempt.tls or ("in clear" if attempt.host else "")
    twice = ", possibly a duplicate" if attempt.possible_duplicate else ""
    reply = f": {attempt.reply}" if attempt.reply else ""
    parts = (f"try {attempt.number}", place, tls, f"phase {attempt.phase}{twice}{reply}")
    return TraceEntry(
        attempt.ended_at or attempt.started_at,
        attempt.outcome,
        attempt.recipient,
        ", ".join(part for part in parts if part),
        {
            "queue_id": attempt.queue_id,
            "number": attempt.number,
            "destination": attempt.destination,
            "started_at": attempt.started_at,
            "ended_at": attempt.ended_at,
            "owner": attempt.owner,
            "phase": attempt.phase,
            "host": attempt.host,
            "address": attempt.address,
            "tls": attempt.tls,
            "status": attempt.status,
            "reply": attempt.reply,
            "possible_duplicate": attempt.possible_duplicate,
        },
    )
