"""One entity that is recoded: what it says of itself, and how it is to be encoded."""

from __future__ import annotations

import re
from typing import Final, Literal

from relaymail.message import headers, parameters
from relaymail.message.limits import Budget, ParseLimits
from relaymail.message.recode_body import (
    Base64,
    Base64Cleaned,
    Body,
    CanonicalBase64,
    Kept,
    KeptASCII,
    QuotedCleaned,
    QuotedPrintable,
)
from relaymail.message.transfer import encoding_of

Conversion = Literal["7bit", "8bit"]
"""Without octets over 127; or only without ``binary`` parts, their bare CRs and LFs, NULs and long lines."""

# No limit of time: the result must be the same each time
_LIMITS: Final = ParseLimits(seconds=float("inf"))
_FIELDS: Final = frozenset({b"content-type", b"content-transfer-encoding", b"mime-version"})
_ENCODING: Final = b"content-transfer-encoding"
_FIELD: Final = re.compile(rb"[!-9;-~]++[ \t]*+:")
_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_LONGEST_LINE: Final = 998
"""Octets of a line that other hosts have to take (RFC 5322 2.1.1); only binary content may have more."""
_HIGH: Final = bytes(range(128, 256))
_DENSE: Final = 6
"""From one octet over 127 in so many on, base64 is shorter than quoted-printable."""


class Header:
    """A header section, line by line.

    :param of_message: of a message, not of a part of a multipart.
    """

    def __init__(self, *, of_message: bool) -> None:
        self.of_message = of_message
        self.size = 0
        """Octets of its lines."""
        self._lines: list[bytes] = []

    def take(self, line: bytes) -> bool:
        """Take a line, without its line end; false: it is none of a header section."""
        first = self.of_message and not self._lines
        if not (
            line[:1] in (b" ", b"\t")
            or _FIELD.match(line) is not None
            or (first and line.startswith((b"From ", b">From ")))
        ):
            return False
        self._lines.append(line)
        self.size += len(line) + 2
        return True

    def content(self, default: str) -> tuple[str, parameters.Parameters, bytes]:
        """Media type, its parameters and Content-Transfer-Encoding, lower case; ``''`` is a type that cannot
        be read.

        :param default: the type where none is given.
        """
        if not self._lines:
            return default, parameters.NONE, b""
        budget = Budget(_LIMITS, lambda: 0.0)
        raw = self._joined(self._lines)
        section = headers.scan(raw, 0, len(raw), _FIELDS, budget)
        given = section.first(b"content-type")
        if given is None:
            media_type, more = default, parameters.NONE
        else:
            found, more = parameters.content_type(given, budget)
            media_type = found or ""
        return media_type, more, (section.first(_ENCODING) or b"").lower()

    def encoded_as(self, encoding: str | None, charset: str = "utf-8") -> bytes:
        """The section and its empty line, with this Content-Transfer-Encoding; ``None``: with what it has.

        A message that says nothing of MIME is given what makes the encoding mean something, and ``charset``.
        """
        if encoding is None:
            return self._joined(self._lines) + b"\r\n"
        names = self._names()
        kept = [line for line, name in zip(self._lines, names, strict=True) if name != _ENCODING]
        added = [f"Content-Transfer-Encoding: {encoding}".encode()]
        if self.of_message and b"mime-version" not in names:
            if b"content-type" not in names:
                added.insert(0, f"Content-Type: text/plain; charset={charset}".encode())
            added.insert(0, b"MIME-Version: 1.0")
        return self._joined(kept + added) + b"\r\n"

    def _names(self) -> list[bytes]:
        """For each line the name of the field that it belongs to, lower case."""
        names: list[bytes] = []
        for line in self._lines:
            if line[:1] in (b" ", b"\t"):
                names.append(names[-1] if names else b"")
            else:
                names.append(line.partition(b":")[0].rstrip(b" \t").lower())
        return names

    @staticmethod
    def _joined(lines: list[bytes]) -> bytes:
        return b"".join([line + b"\r\n" for line in lines])


class Leaf:
    """A part that holds no others, while it is not yet decided how to send it.

    :param signed: every change breaks a signature.
    """

    def __init__(self, header: Header, media_type: str, encoding: bytes, *, signed: bool) -> None:
        self._header = header
        self._text = media_type.startswith(("text/", "message/", "multipart/"))
        self._encoding = encoding
        self._signed = signed
        self._pieces: list[bytes] = []
        self._size = 0

    def collect(self, data: bytes) -> int:
        """Keep the next octets of the body; how many there are now."""
        self._pieces.append(data)
        self._size += len(data)
        return self._size

    def choice(self, conversion: Conversion, look: int) -> tuple[bytes, Body, bytes]:
        """How to send it: the header section, what encodes the body, and what there is of the body.

        :param look: so many octets are looked at; that there are more means that there may be anything.
        """
        data = b"".join(self._pieces)
        seen = data[:look]
        body, encoding = self._body(conversion, seen, complete=len(data) <= look)
        return self._header.encoded_as(encoding, _charset(seen)), body, data

    def _body(self, conversion: Conversion, seen: bytes, *, complete: bool) -> tuple[Body, str | None]:
        """What encodes the body, and the name of that if it is another than before."""
        seven = conversion == "7bit"
        match encoding_of(self._encoding):
            case "base64":
                return (Base64Cleaned() if seven else Kept()), None
            case "quoted-printable":
                return (QuotedCleaned() if seven else Kept()), None
        binary = self._encoding == b"binary"
        if self._signed and not binary and seen.isascii() and b"\0" not in seen:
            return (KeptASCII() if seven else Kept()), None
        odd = b"\0" in seen or (not self._text and _BARE.search(seen) is not None)
        unclean = odd or (binary and not (complete and self._text and _in_lines(seen)))
        if not unclean and not (seven and (not complete or not seen.isascii())):
            same = self._encoding in (b"", b"7bit") or (not seven and not binary)
            return Kept(), None if same else conversion
        if not self._text or odd or (binary and _BARE.search(seen) is not None):
            return Base64(), "base64"
        if (len(seen) - len(seen.translate(None, _HIGH))) * _DENSE > len(seen):
            return CanonicalBase64(), "base64"
        return QuotedPrintable(), "quoted-printable"


def _in_lines(text: bytes) -> bool:
    """Whether these are lines as they can be sent."""
    return _BARE.search(text) is None and max(map(len, text.split(b"\r\n"))) <= _LONGEST_LINE


def _charset(text: bytes) -> str:
    """The charset of text that says nothing of it (RFC 1428)."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        # A character may be cut by the end of what is looked at
        return "utf-8" if error.start >= len(text) - 3 else "unknown-8bit"
    return "utf-8"
