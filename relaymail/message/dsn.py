"""Reports of delivery (RFC 3464, RFC 6522, for internationalized mail RFC 6533): a message made of facts.

A report has a part for people, one for programs, and what is returned of the original. Whatever the original
and the remote hosts have in them, it stays a report: their texts are clipped and escaped, the boundary is one
that is in no part, and an original that no part could carry is returned as its header section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from relaymail.message import headers, references
from relaymail.message.dsn_original import Excerpt, Original, original_part
from relaymail.message.dsn_part import encoded, multipart, one_line
from relaymail.message.dsn_request import Action
from relaymail.message.dsn_status import ReportedRecipient, status_part
from relaymail.message.dsn_text import text_part
from relaymail.message.headers import text_of
from relaymail.message.limits import Budget, Exhausted, ParseLimits

__all__ = ["MOST_RETURNED", "Excerpt", "Original", "Report", "ReportedRecipient", "build", "mail_parameters"]

MOST_RETURNED: Final = 50_000
"""Octets of the original that are returned; of one that has more, the header section is."""

_SUBJECT: Final[dict[Action, str]] = {
    "failed": "Undeliverable",
    "delayed": "Delayed",
    "delivered": "Delivered",
    "relayed": "Handed on",
    "expanded": "Sent to the list",
}
_LONGEST_SUBJECT: Final = 200
_MOST_REFERENCES: Final = 20
_CRLF: Final = "\r\n"


@dataclass(frozen=True, slots=True)
class Report:
    """The facts of a report."""

    message_id: str
    """Its own, without ``<>``."""
    at: datetime
    reporting_mta: str
    """The host's name."""
    author: str
    """The address it is from, where a person reads: ``postmaster@…`` (RFC 3464 2)."""
    to: str
    """The reverse-path of the original."""
    recipients: Sequence[ReportedRecipient]
    """At least one."""
    arrived_at: datetime
    """When the original came."""
    original: Original
    original_id: str
    """The original's Message-ID without ``<>``."""
    original_subject: str
    envelope_id: str | None = None
    """ENVID, decoded."""


def build(report: Report) -> bytes:
    """The message, every line ended with CRLF; to be sent with the null reverse-path (RFC 3461 6.1)."""
    subject = one_line(report.original_subject, _LONGEST_SUBJECT)
    parts = [
        text_part(report.reporting_mta, subject, report.recipients),
        status_part(report.reporting_mta, report.envelope_id, report.arrived_at, report.recipients),
        original_part(report.original),
    ]
    boundary, body = multipart(parts, report.message_id)
    utf8 = not report.to.isascii()
    word = _SUBJECT[report.recipients[0].action]
    fields = [
        f"From: Mail Delivery System <{report.author}>",
        f"To: <{one_line(report.to, 400)}>",
        f"Subject: {encoded(f'{word}: {subject}' if subject else word)}",
        f"Date: {format_datetime(report.at.astimezone(UTC).replace(microsecond=0))}",
        f"Message-ID: <{report.message_id}>",
        *_thread(report, utf8=utf8),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f' boundary="{boundary}"',
        f"Content-Transfer-Encoding: {'8bit' if any(part.eight_bit for part in parts) else '7bit'}",
        "",
        "",
    ]
    return _CRLF.join(fields).encode("utf-8", "replace") + body


def mail_parameters(message: bytes) -> dict[str, str | None]:
    """The parameters of MAIL that a report asks for on its way (RFC 6152, RFC 6531 3.4)."""
    if message.isascii():
        return {}
    header = message.partition(b"\r\n\r\n")[0]
    return {"BODY": "8BITMIME"} | ({} if header.isascii() else {"SMTPUTF8": None})


def _thread(report: Report, *, utf8: bool) -> list[str]:
    """The fields that put it into the original's thread (RFC 5322 3.6.4, RFC 3834 3.1.5)."""
    if not report.original_id or not _fits(report.original_id, utf8=utf8):
        return []
    own = f"<{report.original_id}>"
    earlier = [each for each in _references(report.original.header) if _fits(each, utf8=utf8) and each != own]
    ids = [*earlier[:1], *earlier[1:][-_MOST_REFERENCES:], own]
    return [f"In-Reply-To: {own}", "References: " + f"{_CRLF} ".join(ids)]


def _fits(text: str, *, utf8: bool) -> bool:
    return text.isprintable() and (utf8 or text.isascii()) and " " not in text


def _references(header: bytes) -> list[str]:
    """The ids that the original names, as far as they can be read."""
    budget = Budget(ParseLimits(), lambda: 0.0)
    try:
        section = headers.scan(header, 0, len(header), frozenset({b"references", b"in-reply-to"}), budget)
    except Exhausted:
        return []
    for name in (b"references", b"in-reply-to"):
        if value := section.first(name):
            return (references.references(text_of(value)) or "").split()
    return []
