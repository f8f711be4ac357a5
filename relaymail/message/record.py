"""What is kept of an accepted message: the record that the store writes in one transaction."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from relaymail.message.envelope import Envelope, Origin
from relaymail.message.summary import Summary

RecipientType = Literal["To", "Cc", "Bcc"]


class MailboxRecipient(Struct, frozen=True):
    """A row of ``EmailRecipients``."""

    address: str
    display_name: str | None
    type: RecipientType
    user_id: UUID | None


class MailboxEmail(Struct, frozen=True):
    """A row of ``Emails`` and who sees it.

    One is shared by the sender and the recipients of the headers; each Bcc'd recipient has one of their own.
    """

    id: UUID
    """Random (UUIDv4): the IMAP host takes its first four bytes as the message's UID."""
    recipients: tuple[MailboxRecipient, ...]
    sent_by: UUID | None = None
    notify: tuple[UUID, ...] = ()
    """The local users who are told of it, without repeats."""


class RawContent(Protocol):
    """The bytes exactly as received."""

    size: int

    def memory(self) -> bytes | None:
        """All of them, or ``None`` where they are in a file."""

    def parts(self, size: int) -> Iterator[bytes]:
        """The bytes in parts of ``size`` octets; to be called in a thread where they are in a file."""

    def map(self) -> bytes | mmap.mmap:
        """The bytes of a file as one buffer; to be used in a thread."""


class Record(Struct, frozen=True):
    """A message as it will be stored."""

    id: UUID
    received_at: datetime
    origin: Origin
    envelope: Envelope
    sha256: bytes
    fingerprint: UUID
    """Client or login, envelope and hash: a resend has the same."""
    deduplicate: bool
    """Whether a second message with the fingerprint is taken for a resend."""
    trace_headers: bytes
    header_message_id: str
    """Message-ID without ``<>``; generated where the message has none."""
    summary: Summary
    emails: tuple[MailboxEmail, ...]
    content: RawContent
    added_sender: str | None = None
    """The address of a ``Sender:`` field that the message is delivered with; ``None``: none is added."""
    release_at: datetime | None = None
    """Until then nobody sees it (RFC 4865); it has no ``emails`` yet. ``None``: at once."""

    def under(self, id: UUID) -> Record:
        """The same message with an id it was given before, which its headers name as well."""
        before, after = str(self.id), str(id)
        return replace(
            self,
            id=id,
            trace_headers=self.trace_headers.replace(before.encode(), after.encode()),
            header_message_id=self.header_message_id.replace(before, after),
        )
