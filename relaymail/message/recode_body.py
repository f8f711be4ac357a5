"""Bodies encoded anew, piece by piece: what comes out depends on the octets, not on how they are cut."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, Protocol

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_HIGH: Final = bytes(range(128, 256)) + b"\0"
_MARKED: Final = bytes(63 if octet > 127 or octet == 0 else octet for octet in range(256))
"""``?`` for every octet that cannot stay."""
_ESCAPES: Final = re.compile(rb"[\x00\x80-\xff]")

_LINE_OCTETS: Final = 57 * 80
"""Octets of base64's input that are encoded at a time, a multiple of a line's 57."""
_LONGEST: Final = 4096
"""Octets of a line that are encoded in quoted-printable as one; a longer one is cut into such."""
_QUOTED_LINE: Final = 76
"""Characters of an encoded line at most (RFC 2045 6.7)."""


class RecodeError(Exception):
    """The message cannot be converted (5.6.3); the text says why."""


class Body(Protocol):
    """Takes a body's octets and gives those to be sent instead, which never end in half a line end."""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""

    def finish(self) -> bytes:
        """The rest."""


class LineEnds:
    """Makes every bare CR or LF a CRLF."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        data = self._carry + data
        self._carry = b""
        if data.endswith(b"\r"):
            self._carry = b"\r"
            data = data[:-1]
        ends = data.count(b"\r\n")
        if data.count(b"\n") != ends or data.count(b"\r") != ends:
            data = _LINE_END.sub(b"\r\n", data)
        return data

    def finish(self) -> bytes:
        """The rest."""
        rest = b"\r\n" if self._carry else b""
        self._carry = b""
        return rest


class Kept(LineEnds):
    """Stays as it is, line ends apart."""


class KeptASCII(LineEnds):
    """Stays as it is, and holds nothing that could not."""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain.

        :raises RecodeError: there are octets over 127, or NULs.
        """
        if not data.isascii() or b"\0" in data:
            raise RecodeError("a signed part holds octets that cannot be sent")
        return super().feed(data)


class Marked(LineEnds):
    """What nobody reads, around the parts of a multipart: octets that cannot stay become ``?``.

    :param must_end: parts must follow; else it was not what nobody reads.
    """

    def __init__(self, *, must_end: bool) -> None:
        super().__init__()
        self.must_end = must_end
        self.changed = False
        """Whether there were any."""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        marked = super().feed(data).translate(_MARKED)
        self.changed = self.changed or not data.isascii() or b"\0" in data
        return marked


class Base64Cleaned(LineEnds):
    """Base64 already: octets that are none of it do not count (RFC 2045 6.8) and go."""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        return super().feed(data).translate(None, _HIGH)


class QuotedCleaned(LineEnds):
    """Quoted-printable already: octets that were left out of it are quoted."""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        return _ESCAPES.sub(lambda found: b"=%02X" % found[0][0], super().feed(data))


class QuotedPrintable:
    """Text into quoted-printable (RFC 2045 6.7); a bare CR or LF in it is a line end."""

    def __init__(self) -> None:
        self._lines = LineEnds()
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        self._pending += self._lines.feed(data)
        cut = self._pending.rfind(b"\n") + 1
        whole, self._pending = self._pending[:cut], self._pending[cut:]
        encoded = _quoted_lines(whole)
        # A line's border to the next piece of it stays where it is, however much of it is here by now
        while len(self._pending) > _LONGEST:
            encoded += _quoted_piece(self._pending[:_LONGEST])
            self._pending = self._pending[_LONGEST:]
        return encoded

    def finish(self) -> bytes:
        """The rest."""
        self._pending += self._lines.finish()
        whole, self._pending = self._pending, b""
        return _quoted_lines(whole)


class Base64:
    """Octets into base64 (RFC 2045 6.8), the last line without its line end."""

    def __init__(self) -> None:
        self._pending = b""
        self._first = True

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        self._pending += data
        # The last line waits, because nobody knows yet whether another follows
        cut = max(len(self._pending) - 1, 0) // _LINE_OCTETS * _LINE_OCTETS
        whole, self._pending = self._pending[:cut], self._pending[cut:]
        return self._encoded(whole)

    def finish(self) -> bytes:
        """The rest."""
        whole, self._pending = self._pending, b""
        return self._encoded(whole)

    def _encoded(self, data: bytes) -> bytes:
        if not data:
            return b""
        lines = base64.encodebytes(data)[:-1].replace(b"\n", b"\r\n")
        if self._first:
            self._first = False
            return lines
        return b"\r\n" + lines


class CanonicalBase64(Base64):
    """Text into base64, its line ends made CRLF (RFC 2045 6.8)."""

    def __init__(self) -> None:
        super().__init__()
        self._lines = LineEnds()

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return what is certain."""
        return super().feed(self._lines.feed(data))

    def finish(self) -> bytes:
        """The rest."""
        return super().feed(self._lines.finish()) + super().finish()


def _quoted_lines(text: bytes) -> bytes:
    """Lines that are all ended by CRLF, the last one perhaps not."""
    if len(text) <= _LONGEST:
        return _quoted(text)
    lines = text.split(b"\r\n")
    if max(map(len, lines)) <= _LONGEST:
        return _quoted(text)
    return b"\r\n".join(map(_quoted_line, lines))


def _quoted_line(line: bytes) -> bytes:
    """One line, in pieces if it is long."""
    pieces = []
    while len(line) > _LONGEST:
        pieces.append(_quoted_piece(line[:_LONGEST]))
        line = line[_LONGEST:]
    return b"".join(pieces) + _quoted(line)


def _quoted_piece(piece: bytes) -> bytes:
    """The beginning of a line, and a soft line break."""
    encoded = _quoted(piece)
    if len(encoded) - encoded.rfind(b"\n") - 1 >= _QUOTED_LINE:
        # With the "=" it would be one octet too long
        unit = 3 if encoded[-3:-2] == b"=" else 1
        encoded = encoded[:-unit] + b"=\r\n" + encoded[-unit:]
    return encoded + b"=\r\n"


def _quoted(text: bytes) -> bytes:
    encoded = binascii.b2a_qp(text, istext=True)
    # Without a line to go by it breaks its own with LF
    return encoded if b"\n" in text else encoded.replace(b"=\n", b"=\r\n")
