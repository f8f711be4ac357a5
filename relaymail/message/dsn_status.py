"""The part of a report that programs read (RFC 3464 2, RFC 6533 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from relaymail.message.dsn_part import Part, ascii_only, folded, one_line
from relaymail.message.dsn_request import Action, typed_address

LONGEST_REPLY: Final = 2000
"""Characters of a remote host's reply that are shown."""
LINES_OF_REPLY: Final = 20
_LONGEST_NAME: Final = 500
_CRLF: Final = "\r\n"
_DEFAULT_STATUS: Final[dict[Action, str]] = {
    "failed": "5.0.0",
    "delayed": "4.0.0",
    "delivered": "2.0.0",
    "relayed": "2.0.0",
    "expanded": "2.0.0",
}


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What became of one recipient."""

    address: str
    """The one of the envelope, where it was sent to."""
    action: Action
    status: str = ""
    """Enhanced status code (RFC 3463), such as ``5.1.1``; ``''`` where none is known."""
    original: tuple[str, str] | None = None
    """Type and address, as the sender gave it (ORCPT)."""
    host: str | None = None
    """The name of the next host, if it came so far."""
    reply: str | None = None
    """What that host said, exactly, its lines parted by LF; without a host, our own words."""
    attempted_at: datetime | None = None
    retry_until: datetime | None = None
    """When it is given up, if it is not by then; for a delay."""

    @property
    def code(self) -> str:
        """The status, never empty."""
        return self.status or _DEFAULT_STATUS[self.action]

    @property
    def reply_lines(self) -> list[str]:
        """The reply's lines, clipped and fit to be shown."""
        lines: list[str] = []
        room = LONGEST_REPLY
        for line in (self.reply or "").splitlines():
            if len(lines) == LINES_OF_REPLY or room <= 0:
                lines.append("[...]")
                break
            if shown := one_line(line, room):
                lines.append(shown)
                room -= len(shown)
        return lines

    @property
    def remote(self) -> bool:
        """Whether the reply is that of a host: it begins with a reply code."""
        return self.host is not None and (self.reply or "")[:3].isdigit()


def status_part(
    reporting_mta: str,
    envelope_id: str | None,
    arrived_at: datetime,
    recipients: Sequence[ReportedRecipient],
) -> Part:
    """The second part of the report; ``message/global-delivery-status`` where it takes more than ASCII."""
    utf8 = not all(_is_ascii(recipient) for recipient in recipients)
    fields = [_field("Reporting-MTA", f"dns; {reporting_mta}", utf8)]
    if envelope_id is not None:
        fields.append(_field("Original-Envelope-Id", envelope_id, utf8))
    fields.append(_field("Arrival-Date", _date(arrived_at), utf8))
    groups = [fields, *[_recipient(recipient, utf8) for recipient in recipients]]
    text = f"{_CRLF}{_CRLF}".join(_CRLF.join(group) for group in groups) + _CRLF
    kind = "message/global-delivery-status" if utf8 else "message/delivery-status"
    return Part(kind, text.encode("utf-8", "replace"), description="Delivery report")


def _recipient(recipient: ReportedRecipient, utf8: bool) -> list[str]:
    fields = []
    if recipient.original is not None:
        fields.append(_field("Original-Recipient", typed_address(*recipient.original, utf8=utf8), utf8))
    final = typed_address("rfc822", recipient.address, utf8=utf8)
    fields += [
        _field("Final-Recipient", final, utf8),
        _field("Action", recipient.action, utf8),
        _field("Status", recipient.code, utf8),
    ]
    if recipient.host is not None:
        fields.append(_field("Remote-MTA", f"dns; {recipient.host}", utf8))
    if lines := recipient.reply_lines:
        # RFC 3464 2.3.6: what is not the reply of an SMTP host has no registered type
        kind = "smtp" if recipient.remote else "x-relaymail"
        shown = lines if utf8 else [ascii_only(line) for line in lines]
        fields.append(folded("Diagnostic-Code", [f"{kind}; {shown[0]}", *shown[1:]]))
    if recipient.attempted_at is not None:
        fields.append(_field("Last-Attempt-Date", _date(recipient.attempted_at), utf8))
    if recipient.action == "delayed" and recipient.retry_until is not None:
        fields.append(_field("Will-Retry-Until", _date(recipient.retry_until), utf8))
    return fields


def _field(name: str, value: str, utf8: bool) -> str:
    value = one_line(value, _LONGEST_NAME)
    return folded(name, [value if utf8 else ascii_only(value)])


def _is_ascii(recipient: ReportedRecipient) -> bool:
    return recipient.address.isascii() and (recipient.original is None or recipient.original[1].isascii())


def _date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC).replace(microsecond=0))
