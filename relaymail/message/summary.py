"""From the raw bytes of a message to what the columns of the shared tables need.

:func:`summarize` never raises and never refuses: what cannot be read is left out, and ``parse_status`` says
so. Time is linear in the size of the message and bounded by :attr:`ParseLimits.seconds`; memory is bounded
by the two text columns.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from relaymail.message import addresses, headers, mime, references
from relaymail.message.addresses import Mailbox
from relaymail.message.bodies import Attachment, Bodies
from relaymail.message.clean import header_text
from relaymail.message.encoded_words import WordDecoder
from relaymail.message.headers import Section, text_of
from relaymail.message.limits import READER, Budget, Exhausted, ParseLimits
from relaymail.message.transfer import Raw

__all__ = ["Attachment", "HeaderRecipient", "ParseLimits", "Summary", "summarize"]

MAX_ADDRESS = 320
MAX_SUBJECT = 1000
NO_SUBJECT = "(No Subject)"

_FIELDS = mime.CONTENT_FIELDS | {
    b"from",
    b"sender",
    b"to",
    b"cc",
    b"subject",
    b"date",
    b"message-id",
    b"in-reply-to",
    b"references",
}
_DEFAULT_LIMITS = ParseLimits()


class HeaderRecipient(Struct, frozen=True):
    """An address of the To: or Cc: fields."""

    address: str
    display_name: str | None
    type: Literal["To", "Cc"]


class Summary(Struct, frozen=True):
    """What a message says of itself. Every text fits its column: clean, and clipped by code points."""

    message_id: str | None
    """Without ``<`` and ``>``; ``None`` when missing or of no use to a reader."""
    from_address: str
    """The first usable address of From:, ``''`` when there is none."""
    from_display_name: str | None
    sender_addresses: tuple[str, ...]
    """Every address of every From: field, not clipped."""
    subject: str
    in_reply_to: str | None
    references: str | None
    """Ids in angle brackets, parted by spaces, none cut."""
    text_body: str | None
    html_body: str | None
    recipients: tuple[HeaderRecipient, ...]
    """To, then Cc, in order; an address counts once, in any case."""
    attachments: tuple[Attachment, ...]
    header_bytes: int
    """Octets of the header section, without the empty line."""
    hops: int
    """Received: fields."""
    has_date: bool
    has_from: bool
    """Whether there is a From: field, with an address in it or not."""
    has_message_id: bool
    """Whether there is a Message-ID: field, usable or not."""
    has_sender: bool
    parse_status: str
    """``complete``, ``limited: … (reader n)`` or ``failed: … (reader n)``."""


def summarize(
    raw: Raw | memoryview,
    *,
    limits: ParseLimits = _DEFAULT_LIMITS,
    clock: Callable[[], float] = time.thread_time,
) -> Summary:
    """Read a message. Never raises.

    ``raw`` is not kept; of a memory view that is not the whole of its bytes or map a copy is made. ``clock``
    gives seconds and never goes back; by default those that this thread has worked.
    """
    budget = Budget(limits, clock)
    reading = _Reading(_searchable(raw), budget)
    try:
        reading.read()
    except Exhausted:
        pass  # the budget has noted it
    except Exception as error:  # a mistake of ours must not cost anybody a message: what was read is stored
        return reading.summary(f"failed: {type(error).__name__} ({READER})")
    return reading.summary(budget.status)


def _searchable(raw: Raw | memoryview) -> Raw:
    if not isinstance(raw, memoryview):
        return raw
    if isinstance(raw.obj, (bytes, mmap.mmap)) and raw.nbytes == len(raw.obj) and raw.c_contiguous:
        return raw.obj
    return bytes(raw)


class _Reading:
    """One reading: the columns as far as they are known, so that whatever stops it, that much is kept."""

    def __init__(self, raw: Raw, budget: Budget) -> None:
        self._raw = raw
        self._budget = budget
        self._section = Section({}, 0, 0, 0)
        self._message_id: str | None = None
        self._senders: list[Mailbox] = []
        self._subject = ""
        self._in_reply_to: str | None = None
        self._references: str | None = None
        self._recipients: dict[str, HeaderRecipient] = {}
        self._bodies = Bodies(raw, budget)

    def read(self) -> None:
        """Read it all, the cheap and important first. Raises :class:`Exhausted`."""
        raw, budget = self._raw, self._budget
        end = len(raw)
        self._section = section = headers.scan(raw, 0, end, _FIELDS, budget)
        if value := section.first(b"message-id"):
            self._message_id = references.message_id(text_of(value))
        if value := section.first(b"subject"):
            self._subject = header_text(WordDecoder(budget).decode(text_of(value)), MAX_SUBJECT)
        if value := section.first(b"in-reply-to"):
            self._in_reply_to = references.in_reply_to(text_of(value))
        if value := section.first(b"references"):
            self._references = references.references(text_of(value))
        self._senders = self._mailboxes(b"from")
        self._add_recipients(b"to", "To")
        self._add_recipients(b"cc", "Cc")
        for leaf in mime.leaves(raw, section, end, budget):
            self._bodies.take(leaf)

    def _mailboxes(self, field: bytes) -> list[Mailbox]:
        found: list[Mailbox] = []
        for value in self._section.all(field):
            found += addresses.parse(text_of(value), self._budget)
        return found

    def _add_recipients(self, field: bytes, kind: Literal["To", "Cc"]) -> None:
        for address, name in self._mailboxes(field):
            if len(address) <= MAX_ADDRESS:
                self._recipients.setdefault(address.lower(), HeaderRecipient(address, name, kind))

    def summary(self, status: str) -> Summary:
        """The columns with ``status`` as the parse status."""
        sender = self._senders[0] if self._senders else Mailbox("", None)
        fields = self._section.fields
        return Summary(
            self._message_id,
            sender.address[:MAX_ADDRESS],
            sender.name,
            tuple([mailbox.address for mailbox in self._senders]),
            self._subject or NO_SUBJECT,
            self._in_reply_to,
            self._references,
            self._bodies.text,
            self._bodies.html,
            tuple(self._recipients.values()),
            tuple(self._bodies.attachments),
            self._section.end,
            self._section.hops,
            b"date" in fields,
            b"from" in fields,
            b"message-id" in fields,
            b"sender" in fields,
            status,
        )
