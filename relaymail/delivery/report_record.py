"""A report as it is stored: the message, and the mailbox it goes to."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from uuid import UUID, uuid4

from relaymail.message import dsn
from relaymail.message.dsn import Report
from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.record import MailboxEmail, MailboxRecipient, Record
from relaymail.message.summary import summarize
from relaymail.smtp.address import Address


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Where a report goes."""

    address: Address
    user_id: UUID | None
    """The local user who gets it."""
    destination: str | None
    """Where it is sent on to; ``None``: it stays here."""


def record_of(report_id: UUID, report: Report, mailbox: Mailbox) -> Record:
    """The report as it is stored. It takes some ms, of many recipients 60: use it in a thread."""
    raw = dsn.build(report)
    parameters: Mapping[str, str | None] = dsn.mail_parameters(raw)
    recipient = EnvelopeRecipient(
        str(mailbox.address),
        mailbox.user_id,
        {} if mailbox.destination is None else {"NOTIFY": "NEVER"},
        mailbox.destination,
    )
    emails: tuple[MailboxEmail, ...] = ()
    if mailbox.user_id is not None:
        row = MailboxRecipient(str(mailbox.address), None, "To", mailbox.user_id)
        emails = (MailboxEmail(uuid4(), (row,), None, (mailbox.user_id,)),)
    date = format_datetime(report.at.replace(microsecond=0))
    trace = f"Received: by {report.reporting_mta}\r\n\tid {report_id};\r\n\t{date}\r\n"
    if mailbox.destination is None:
        trace = f"Return-Path: <>\r\n{trace}"
    return Record(
        id=report_id,
        received_at=report.at,
        origin=Origin("local", "", "", report.reporting_mta),
        envelope=Envelope("", (recipient,), parameters),
        sha256=hashlib.sha256(raw).digest(),
        fingerprint=report_id,
        deduplicate=False,
        trace_headers=trace.encode(),
        header_message_id=report.message_id,
        summary=summarize(raw),
        emails=emails,
        content=_Content(raw),
    )


class _Content:
    """A report is small: it stays in memory."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.size = len(raw)

    def memory(self) -> bytes:
        """All of it."""
        return self._raw

    def parts(self, size: int) -> Iterator[bytes]:
        """It in parts of ``size`` octets."""
        for start in range(0, self.size, size):
            yield self._raw[start : start + size]

    def map(self) -> bytes | mmap.mmap:
        """All of it."""
        return self._raw
