"""Reads what schema ``relaymail`` keeps of every accepted message: for people, and byte for byte."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from relaymail.message.delivered import DeliveredForm, Fixes
from relaymail.store.database import Database

SHORTEST_PREFIX = 8
"""Fewest characters of an id that may stand for it."""

_ID_DIGITS = 32

_NEWEST = """
    SELECT m.id, m.received_at, m.listener, m.reverse_path, m.from_address, m.subject, m.size_bytes,
           ARRAY(SELECT r.address FROM relaymail.envelope_recipient r WHERE r.message_id = m.id ORDER BY r.n)
    FROM relaymail.message m
    WHERE %s::uuid IS NULL OR m.id < %s::uuid
    ORDER BY m.id DESC LIMIT %s
"""

_FACTS = """
    SELECT id, received_at, listener, session_id, client_address, client_name, login_user_id, tls_version,
           tls_cipher, reverse_path, mail_parameters, size_bytes, encode(sha256, 'hex'), message_id,
           from_address, subject, parse_status, added_sender, email_ids
    FROM relaymail.message WHERE id = %s
"""

_DELIVERED = """
    SELECT trace_headers, listener <> 'mx', message_id, received_at, added_sender,
           COALESCE(upper(mail_parameters ->> 'BODY') = 'BINARYMIME', false)
    FROM relaymail.message WHERE id = %s
"""

_EMAILS = """
    SELECT e."Id", e."ThreadId", e."SentByUserId", r."Type", r."Address", r."UserId"
    FROM public."Emails" e LEFT JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"
    WHERE e."Id" = ANY (%s::uuid[])
    ORDER BY e."Id", r."Type" DESC, r."Address"
"""


class ArchiveError(Exception):
    """The message cannot be had; the text is a sentence for whoever asked."""


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """One line of a list of messages."""

    id: UUID
    received_at: datetime
    listener: str
    reverse_path: str
    from_address: str
    subject: str
    size_bytes: int
    recipients: list[str]


@dataclass(frozen=True, slots=True)
class EnvelopeRecipient:
    """One RCPT of a message: its address, the local user it reached, its parameters."""

    address: str
    user_id: UUID | None
    parameters: Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a message."""

    at: datetime
    kind: str
    detail: Any


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How far a notification of the message has come."""

    id: int
    email_id: UUID
    state: str
    attempts: int
    due_at: datetime
    last_error: str | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class EmailRow:
    """A recipient row of one of the ``Emails`` rows made of a message; one without recipients has nulls."""

    email_id: UUID
    thread_id: UUID | None
    sent_by_user_id: UUID | None
    type: str | None
    address: str | None
    user_id: UUID | None


@dataclass(frozen=True, slots=True)
class MessageDetail:
    """Everything known of a message but its bytes. ``email_ids`` may name rows the API has deleted since."""

    id: UUID
    received_at: datetime
    listener: str
    session_id: str
    client_address: str
    client_name: str
    login_user_id: UUID | None
    tls_version: str | None
    tls_cipher: str | None
    reverse_path: str
    mail_parameters: Any
    size_bytes: int
    sha256: str
    message_id: str
    from_address: str
    subject: str
    parse_status: str
    added_sender: str | None
    email_ids: list[UUID]
    recipients: list[EnvelopeRecipient]
    events: list[Event]
    outbox: list[OutboxState]
    emails: list[EmailRow]


class Archive:
    """The stored messages. Raises :class:`ArchiveError`, and ``DatabaseError`` where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, *, limit: int, before: UUID | None = None) -> list[MessageSummary]:
        """At most ``limit`` messages, newest first; only those older than the message ``before`` if given.

        The order is that of the ids, which are time-ordered.
        """
        rows = await self._database.query("archive.newest", _NEWEST, (before, before, limit))
        return [MessageSummary(*row) for row in rows]

    async def resolve(self, text: str) -> UUID:
        """The id that ``text`` means: a whole id, or at least 8 characters that only one id begins with."""
        digits = text.strip().lower().replace("-", "")
        if not SHORTEST_PREFIX <= len(digits) <= _ID_DIGITS or not re.fullmatch("[0-9a-f]+", digits):
            raise ArchiveError(
                f"{text!r} is no message id: give at least its first {SHORTEST_PREFIX} characters."
            )
        first, last = UUID(digits.ljust(_ID_DIGITS, "0")), UUID(digits.ljust(_ID_DIGITS, "f"))
        rows = await self._database.query(
            "archive.resolve",
            "SELECT id FROM relaymail.message WHERE id BETWEEN %s AND %s ORDER BY id LIMIT 2",
            (first, last),
        )
        if not rows:
            raise ArchiveError(f"There is no message {text}: `relaymail message list` shows the latest.")
        if len(rows) > 1:
            raise ArchiveError(f"Several messages begin with {text}: give more of the id.")
        return UUID(str(rows[0][0]))

    async def show(self, message_id: UUID) -> MessageDetail:
        """All that is known of a message."""
        rows = await self._database.query("archive.facts", _FACTS, (message_id,))
        if not rows:
            raise ArchiveError(f"There is no message {message_id}.")
        *facts, email_ids = rows[0]
        everything: list[Any] = [
            *facts,
            email_ids,
            await self._recipients(message_id),
            await self._events(message_id),
            await self._outbox(message_id),
            await self._emails(email_ids),
        ]
        return MessageDetail(*everything)

    async def _recipients(self, message_id: UUID) -> list[EnvelopeRecipient]:
        rows = await self._database.query(
            "archive.recipients",
            "SELECT address, user_id, parameters FROM relaymail.envelope_recipient "
            "WHERE message_id = %s ORDER BY n",
            (message_id,),
        )
        return [EnvelopeRecipient(*row) for row in rows]

    async def _events(self, message_id: UUID) -> list[Event]:
        rows = await self._database.query(
            "archive.events",
            "SELECT at, kind, detail FROM relaymail.event WHERE message_id = %s ORDER BY id",
            (message_id,),
        )
        return [Event(*row) for row in rows]

    async def _outbox(self, message_id: UUID) -> list[OutboxState]:
        rows = await self._database.query(
            "archive.outbox",
            "SELECT id, email_id, state, attempts, due_at, last_error, finished_at "
            "FROM relaymail.outbox WHERE message_id = %s ORDER BY id",
            (message_id,),
        )
        return [OutboxState(*row) for row in rows]

    async def _emails(self, email_ids: list[UUID]) -> list[EmailRow]:
        rows = await self._database.query("archive.emails", _EMAILS, (email_ids,))
        return [EmailRow(*row) for row in rows]

    async def export(self, message_id: UUID) -> AsyncIterator[bytes]:
        """The bytes of a message exactly as they were received; memory holds one part at a time.

        :raises ArchiveError: unknown message; or, behind the last part, bytes that are not those received.
        """
        rows = await self._database.query(
            "archive.export",
            "SELECT sha256, ARRAY("
            "SELECT n FROM relaymail.message_part p WHERE p.message_id = m.id ORDER BY n) "
            "FROM relaymail.message m WHERE id = %s",
            (message_id,),
        )
        if not rows:
            raise ArchiveError(f"There is no message {message_id}.")
        expected, numbers = rows[0]
        digest = hashlib.sha256()
        for number in numbers:
            part = await self._part(message_id, number)
            digest.update(part)
            yield part
        if digest.digest() != expected:
            raise ArchiveError(f"Message {message_id} is not stored as it was received: its SHA-256 differs.")

    async def export_delivered(self, message_id: UUID) -> AsyncIterator[bytes]:
        """The message as a reader or the next host gets it; memory holds its header section and one part.

        :raises ArchiveError: as :meth:`export` does; what was given before is not the message then.
        """
        rows = await self._database.query("archive.delivered", _DELIVERED, (message_id,))
        if not rows:
            raise ArchiveError(f"There is no message {message_id}.")
        trace, submitted, header_message_id, received_at, sender, binary = rows[0]
        fixes = Fixes(header_message_id, received_at, sender, binary) if submitted else None
        form = DeliveredForm(bytes(trace), fixes)
        async for part in self.export(message_id):
            if piece := form.feed(part):
                yield piece
        if piece := form.finish():
            yield piece

    async def _part(self, message_id: UUID, number: int) -> bytes:
        rows = await self._database.query(
            "archive.part",
            "SELECT content FROM relaymail.message_part WHERE message_id = %s AND n = %s",
            (message_id, number),
        )
        if not rows:
            raise ArchiveError(f"Message {message_id} was deleted while it was read.")
        return bytes(rows[0][0])
