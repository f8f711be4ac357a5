"""What the leaves of a message become: its text, its HTML, its attachments.

In the order of the message the first ``text/plain`` is the text and the first ``text/html`` the HTML,
wherever in the multiparts they stand (alternative, mixed, related, signed, …), unless the part is marked as
an attachment or has a file name; a message whose only body is one text part with a ``name`` is that text
all the same. Every other leaf is an attachment: inline images, attached messages, signatures, calendars,
delivery reports, further text parts. Only a further text part that has no name and holds nothing but white
space is none: mail programs leave those between attachments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaymail.message import charsets, transfer
from relaymail.message.clean import body_text, file_name
from relaymail.message.limits import KIB, Budget
from relaymail.message.mime import Leaf
from relaymail.message.transfer import Encoding, Raw

MAX_CONTENT_TYPE = 200
_FALLBACK_TYPE = "application/octet-stream"
_BLANK_MAX = 1 * KIB

# Names for parts that have none. An extension lets the reader's system open them
_NAMES = {
    "message/rfc822": "message.eml",
    "message/global": "message.eml",
    "text/rfc822-headers": "headers.txt",
    "message/delivery-status": "delivery-status.txt",
    "message/global-delivery-status": "delivery-status.txt",
    "message/disposition-notification": "disposition-notification.txt",
    "message/feedback-report": "feedback-report.txt",
    "text/plain": "attachment.txt",
    "text/html": "attachment.html",
    "text/calendar": "invite.ics",
    "application/ics": "invite.ics",
    "text/csv": "attachment.csv",
    "text/vcard": "contact.vcf",
    "text/x-vcard": "contact.vcf",
    "application/pdf": "attachment.pdf",
    "application/pgp-signature": "signature.asc",
    "application/pgp-encrypted": "version.asc",
    "application/pgp-keys": "key.asc",
    "application/pkcs7-signature": "smime.p7s",
    "application/x-pkcs7-signature": "smime.p7s",
    "application/pkcs7-mime": "smime.p7m",
    "application/x-pkcs7-mime": "smime.p7m",
    "application/zip": "attachment.zip",
    "application/gzip": "attachment.gz",
    "image/png": "image.png",
    "image/jpeg": "image.jpg",
    "image/gif": "image.gif",
    "image/webp": "image.webp",
    "image/svg+xml": "image.svg",
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """One attachment: its column values, and where in the raw message its content is."""

    file_name: str
    """Never empty, at most 500 characters, no path, no control characters."""
    content_type: str
    """``type/subtype``, lower-case, at most 200 characters."""
    size: int
    """Octets once decoded."""
    start: int
    end: int
    encoding: Encoding

    def decode(self, raw: Raw | memoryview) -> Iterator[bytes]:
        """The content of ``raw``, the message summarized: pieces of up to 256 KiB, :attr:`size` in all."""
        return transfer.decode(raw, self.start, self.end, self.encoding)


class Bodies:
    """Takes the leaves one by one."""

    def __init__(self, raw: Raw, budget: Budget) -> None:
        self._raw = raw
        self._budget = budget
        self.text: str | None = None
        self.html: str | None = None
        self.attachments: list[Attachment] = []

    def take(self, leaf: Leaf) -> None:
        """Put a leaf where it belongs. Raises only :class:`~.limits.Exhausted`, and then nothing was put."""
        body = _may_be_body(leaf)
        # RFC 2045 5.2: a type that cannot be read is text/plain
        media_type = leaf.media_type or "text/plain"
        if body and media_type == "text/plain" and self.text is None:
            self.text = self._text(leaf)
        elif body and media_type == "text/html" and self.html is None:
            self.html = self._text(leaf)
        elif not (body and self._is_blank(leaf)):
            self.attachments.append(self._attachment(leaf))

    def _text(self, leaf: Leaf) -> str:
        """The decoded and cleaned text, clipped to :attr:`ParseLimits.body_characters`."""
        charset = leaf.parameters.label("charset")
        limit = self._budget.limits.body_characters
        if leaf.end - leaf.start <= transfer.CHUNK:
            data = transfer.decode_short(self._raw[leaf.start : leaf.end], leaf.encoding)
            text = charsets.decode(data, charset)
        else:
            text = charsets.decode_stream(lambda: self._watched(leaf), charset, limit)
        if len(text) > limit:
            self._budget.note(f"text over {limit} characters")
            text = text[:limit]
        return body_text(text.removeprefix("\ufeff"))

    def _attachment(self, leaf: Leaf) -> Attachment:
        identity = leaf.encoding == "identity"
        size = leaf.end - leaf.start if identity else sum(map(len, self._watched(leaf)))
        content_type = self._content_type(leaf)
        name = file_name(leaf.file_name or "") or _NAMES.get(content_type, "attachment")
        return Attachment(name, content_type, size, leaf.start, leaf.end, leaf.encoding)

    def _content_type(self, leaf: Leaf) -> str:
        content_type = leaf.media_type
        if content_type is None or len(content_type) > MAX_CONTENT_TYPE:
            return _FALLBACK_TYPE
        if content_type == "message/rfc822" and not self._looks_like_message(leaf):
            return _FALLBACK_TYPE  # readers parse what is called a message, and fail
        return content_type

    def _looks_like_message(self, leaf: Leaf) -> bool:
        head = next(
            transfer.decode(self._raw, leaf.start, min(leaf.end, leaf.start + KIB), leaf.encoding), b""
        )
        name, colon, _ = head.lstrip(b"\r\n").partition(b":")
        return bool(colon) and name.rstrip().isascii() and b"\n" not in name

    def _is_blank(self, leaf: Leaf) -> bool:
        return leaf.end - leaf.start <= _BLANK_MAX and not self._text(leaf).strip()

    def _watched(self, leaf: Leaf) -> Iterator[bytes]:
        for chunk in transfer.decode(self._raw, leaf.start, leaf.end, leaf.encoding):
            self._budget.look()
            yield chunk


def _may_be_body(leaf: Leaf) -> bool:
    if leaf.media_type is None:
        if leaf.encoding == "base64":
            return False
    elif not leaf.media_type.startswith("text/"):
        return False
    if leaf.disposition not in (None, "inline"):
        return False
    return leaf.root or not leaf.file_name
