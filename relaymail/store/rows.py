"""A record as rows: one INSERT per table for a whole batch of messages.

Ids and times go in as text that is cheap to make: digits of an id, ISO 8601. A message has some twenty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec.structs import replace

from relaymail.message.dsn_request import wanted
from relaymail.message.ids import random_id
from relaymail.message.record import MailboxEmail, MailboxRecipient, Record
from relaymail.message.summary import Attachment, summarize
from relaymail.store.octets import octets

_PRIORITY: Final = re.compile("-?[0-9]")
PART_OCTETS: Final = 512 * 1024
"""Octets of a part of the raw message, or of an attachment on its way."""

_MESSAGE: Final = (
    "INSERT INTO relaymail.message (id, received_at, listener, session_id, client_address, client_name,"
    " login_user_id, tls_version, tls_cipher, reverse_path, mail_parameters, size_bytes, sha256, dedupe_key,"
    " trace_headers, message_id, from_address, subject, parse_status, email_ids, added_sender,"
    " release_at) VALUES ",
    "(%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s::uuid[],%s,%s)",
)
_PART: Final = ("INSERT INTO relaymail.message_part (message_id, n, content) VALUES ", "(%s,%s,%s)")
_RECIPIENT: Final = (
    "INSERT INTO relaymail.envelope_recipient (message_id, n, address, user_id, parameters) VALUES ",
    "(%s,%s,%s,%s,%s)",
)
_EVENT: Final = ("INSERT INTO relaymail.event (message_id, kind) VALUES ", "(%s,%s)")
_OUTBOX: Final = ("INSERT INTO relaymail.outbox (message_id, email_id, payload) VALUES ", "(%s,%s,%s)")

# A time before now is that of a clock that is wrong
_QUEUE: Final = (
    "INSERT INTO relaymail.queue (message_id, n, recipient, destination, priority, queued_at, due_at)"
    " VALUES ",
    "(%s,%s,%s,%s,%s,greatest(now(),%s::timestamptz),greatest(now(),%s::timestamptz))",
)
# Here it is delivered with the acceptance, or when it is released: all that is left to do is to say so
_REACHED: Final = (
    "INSERT INTO relaymail.queue (message_id, n, recipient, destination, state, finished_at, last_status,"
    " owed_dsn, dsn_due_at) VALUES ",
    "(%s,%s,%s,%s,'delivered',greatest(now(),%s::timestamptz),'2.1.5','delivered',%s::timestamptz)",
)
_ARRIVAL: Final = (
    "INSERT INTO relaymail.arrival (destination, priority, due_at) VALUES ",
    "(%s,%s,greatest(now(),%s::timestamptz))",
)

_EMAIL_INTO: Final = (
    'INSERT INTO public."Emails" ("Id", "MessageId", "FromAddress", "FromDisplayName", "Subject", "TextBody",'
    ' "HtmlBody", "ReceivedAt", "SizeBytes", "InReplyTo", "References", "SentByUserId", "ThreadId") VALUES '
)
_TEXTS: Final = "%s,%s"
# A message to a thousand users is a thousand rows with the same text: it is sent once
_TEXTS_COPIED: Final = (
    '(SELECT "TextBody" FROM public."Emails" WHERE "Id" = %s),'
    '(SELECT "HtmlBody" FROM public."Emails" WHERE "Id" = %s)'
)
_OWN_THREAD: Final = "%s::uuid"
# The thread of the message this one answers, if one of the same users has that message
_THREAD_OF_ANSWER: Final = (
    'COALESCE((SELECT COALESCE(p."ThreadId", p."Id") FROM public."Emails" p WHERE p."MessageId" = %s AND ('
    'p."SentByUserId" = ANY(%s::uuid[]) OR EXISTS (SELECT FROM public."EmailRecipients" r'
    ' WHERE r."EmailId" = p."Id" AND r."UserId" = ANY(%s::uuid[]))) ORDER BY p."ReceivedAt" LIMIT 1),'
    " %s::uuid)"
)


def _email_insert(texts: str, thread: str) -> tuple[str, str]:
    return _EMAIL_INTO, f"(%s,%s,%s,%s,%s,{texts},%s,%s,%s,%s,%s::uuid,{thread})"


_EMAIL: Final = _email_insert(_TEXTS, _OWN_THREAD)
_EMAIL_ANSWER: Final = _email_insert(_TEXTS, _THREAD_OF_ANSWER)
_EMAIL_COPY: Final = _email_insert(_TEXTS_COPIED, _OWN_THREAD)
_EMAIL_ANSWER_COPY: Final = _email_insert(_TEXTS_COPIED, _THREAD_OF_ANSWER)
_MAILBOX_INTO: Final = (
    'INSERT INTO public."EmailRecipients" ("Id", "EmailId", "Address", "DisplayName", "Type", "UserId",'
    ' "IsRead") VALUES '
)
_MAILBOX: Final = (_MAILBOX_INTO, "(%s,%s,%s,%s,%s,%s,false)")
# A user deleted since the RCPT is no reason to lose the message
_MAILBOX_CHECKED: Final = (
    _MAILBOX_INTO,
    '(%s,%s,%s,%s,%s,(SELECT "Id" FROM public."Users" WHERE "Id" = %s::uuid),false)',
)
_ATTACHMENT_INTO: Final = (
    'INSERT INTO public."EmailAttachments" ("Id", "EmailId", "FileName", "ContentType", "SizeBytes",'
    ' "Content") VALUES '
)
_ATTACHMENT: Final = (_ATTACHMENT_INTO, "(%s,%s,%s,%s,%s,%s)")
_ATTACHMENT_COPY: Final = (
    _ATTACHMENT_INTO,
    '(%s,%s,%s,%s,%s,(SELECT "Content" FROM public."EmailAttachments" WHERE "Id" = %s))',
)

Insert = tuple[str, str]


@dataclass(slots=True)
class Rows:
    """Rows gathered per INSERT, in the order in which foreign keys want them."""

    check_users: bool = False
    """Whether a local user may be gone by now."""
    _tables: dict[Insert, list[Sequence[object]]] = field(default_factory=dict)
    _arrivals: set[tuple[str, int, str | None]] = field(default_factory=set)

    def add(self, record: Record, *, raw: bytes | None, attachments: Sequence[bytes] | None) -> None:
        """Add all rows of a record. ``raw`` and ``attachments`` are ``None`` where their bytes come later."""
        message_id = record.id.hex
        self._row(_MESSAGE, _message(record))
        if raw is not None:
            for n, start in enumerate(range(0, len(raw) or 1, PART_OCTETS)):
                self._row(_PART, (message_id, n, octets(raw[start : start + PART_OCTETS])))
        for n, recipient in enumerate(record.envelope.recipients):
            parameters = _json(recipient.parameters)
            self._row(_RECIPIENT, (message_id, n, recipient.address, _text(recipient.user_id), parameters))
            if recipient.destination is not None:
                self._queue(record, n, recipient.address, recipient.destination)
            elif recipient.parameters and wanted("delivered", recipient.parameters):
                self._reached(record, n, recipient.address)
        self._row(_EVENT, (message_id, "accepted"))
        for email in record.emails:
            self._email(record, email)
        if attachments is not None and record.emails:
            for attachment, content in zip(record.summary.attachments, attachments, strict=True):
                self._attachment(record, attachment, content)

    def add_release(self, record: Record) -> None:
        """Add the rows of a message that was held; the content of attachments comes later."""
        self._row(_EVENT, (record.id.hex, "released"))
        for email in record.emails:
            self._email(record, email)

    def _queue(self, record: Record, n: int, address: str, destination: str) -> None:
        """A recipient elsewhere. One arrival lets a claim know of all that is here for a destination."""
        due = None if record.release_at is None else record.release_at.isoformat()
        urgency = priority(record.envelope.parameters)
        self._row(_QUEUE, (record.id.hex, n, address, destination, urgency, due, due))
        arrival = (destination, urgency, due)
        if arrival not in self._arrivals:
            self._arrivals.add(arrival)
            self._row(_ARRIVAL, arrival)

    def _reached(self, record: Record, n: int, address: str) -> None:
        """A recipient here whose sender wants to hear that the message got there (RFC 3461 5.2.2).

        Strangers are not told: anyone could have that sent to anyone.
        """
        if record.origin.login_user_id is not None and record.envelope.reverse_path:
            due = None if record.release_at is None else record.release_at.isoformat()
            domain = address.rpartition("@")[2].lower()
            self._row(_REACHED, (record.id.hex, n, address, domain, due, due))

    def _attachment(self, record: Record, attachment: Attachment, content: bytes) -> None:
        """An attachment of every row of ``Emails``; its content travels once."""
        facts = (attachment.file_name, attachment.content_type, attachment.size)
        first_id = random_id()
        first, *others = record.emails
        self._row(_ATTACHMENT, (first_id, first.id.hex, *facts, octets(content)))
        for email in others:
            self._row(_ATTACHMENT_COPY, (random_id(), email.id.hex, *facts, first_id))

    def _email(self, record: Record, email: MailboxEmail) -> None:
        summary = record.summary
        email_id = email.id.hex
        first_id = record.emails[0].id.hex
        copied = email_id != first_id
        texts = (first_id, first_id) if copied else (summary.text_body, summary.html_body)
        row = (
            email_id,
            record.header_message_id,
            summary.from_address,
            summary.from_display_name,
            summary.subject,
            *texts,
            record.received_at.isoformat(),
            record.content.size,
            summary.in_reply_to,
            summary.references,
            _text(email.sent_by),
        )
        if summary.in_reply_to is None:
            self._row(_EMAIL_COPY if copied else _EMAIL, (*row, email_id))
        else:
            users = [r.user_id.hex for r in email.recipients if r.user_id is not None]
            if email.sent_by is not None:
                users.append(email.sent_by.hex)
            answer = _EMAIL_ANSWER_COPY if copied else _EMAIL_ANSWER
            self._row(answer, (*row, summary.in_reply_to, users, users, email_id))
        into = _MAILBOX_CHECKED if self.check_users else _MAILBOX
        for r in email.recipients:
            self._row(into, (random_id(), email_id, r.address, r.display_name, r.type, _text(r.user_id)))
        if email.notify:
            self._row(_OUTBOX, (record.id.hex, email_id, notification(record, email)))

    def _row(self, into: Insert, row: Sequence[object]) -> None:
        self._tables.setdefault(into, []).append(row)

    def statement(self) -> tuple[str, list[object]]:
        """All INSERTs in one text, and its parameters."""
        texts: list[str] = []
        parameters: list[object] = []
        for into in _ORDER:
            rows = self._tables.get(into)
            if rows:
                texts.append(into[0] + ",".join([into[1]] * len(rows)))
                for row in rows:
                    parameters.extend(row)
        return ";".join(texts), parameters


_ORDER: Final = (
    _MESSAGE,
    _PART,
    _RECIPIENT,
    _REACHED,
    _EVENT,
    _EMAIL,
    _EMAIL_ANSWER,
    _EMAIL_COPY,
    _EMAIL_ANSWER_COPY,
    _MAILBOX,
    _MAILBOX_CHECKED,
    _ATTACHMENT,
    _ATTACHMENT_COPY,
    _OUTBOX,
    _QUEUE,
    _ARRIVAL,
)


def _message(record: Record) -> tuple[object, ...]:
    origin, envelope = record.origin, record.envelope
    return (
        record.id.hex,
        record.received_at.isoformat(),
        origin.listener,
        origin.session_id,
        origin.client_address,
        clean(origin.client_name),
        _text(origin.login_user_id),
        origin.tls_version,
        origin.tls_cipher,
        envelope.reverse_path,
        _json(envelope.parameters),
        record.content.size,
        record.sha256,
        record.fingerprint.hex if record.deduplicate else None,
        octets(record.trace_headers),
        record.header_message_id,
        record.summary.from_address,
        record.summary.subject,
        record.summary.parse_status,
        [email.id.hex for email in record.emails],
        record.added_sender,
        record.release_at,
    )


def priority(parameters: Mapping[str, str | None]) -> int:
    """MT-PRIORITY (RFC 6710) of a message: -9 to 9, 0 where it has none."""
    value = parameters.get("MT-PRIORITY")
    return int(value) if value and _PRIORITY.fullmatch(value) else 0


def notification(record: Record, email: MailboxEmail) -> str:
    """The body of the notification, complete."""
    summary = record.summary
    body: dict[str, Any] = {
        "userIds": [str(user) for user in email.notify],
        "email": {
            "id": str(email.id),
            "from": summary.from_address,
            "fromDisplay": summary.from_display_name,
            "subject": summary.subject,
            "receivedAt": record.received_at.isoformat().replace("+00:00", "Z"),
            "hasAttachments": bool(summary.attachments),
        },
    }
    return msgspec.json.encode(body).decode()


def without_columns(record: Record, why: str | None) -> Record:
    """The record with nothing in it that came from parsing: the last resort when a column cannot hold it."""
    emails = tuple(replace(email, recipients=_bare(email.recipients)) for email in record.emails)
    summary = replace(summarize(b""), parse_status=f"unstorable: {why}")
    return replace(record, summary=summary, emails=emails, header_message_id=f"{record.id}@relaymail.invalid")


def _bare(recipients: Iterable[MailboxRecipient]) -> tuple[MailboxRecipient, ...]:
    return tuple(replace(recipient, display_name=None) for recipient in recipients)


def clean(text: str) -> str:
    """Text that a column takes: no NUL, no lone surrogate."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _text(value: UUID | None) -> str | None:
    return None if value is None else value.hex


def _json(parameters: Mapping[str, str | None]) -> str | None:
    return msgspec.json.encode(parameters).decode() if parameters else None
