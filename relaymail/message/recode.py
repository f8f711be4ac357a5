"""Makes a message fit for a host that does not take 8BITMIME or BINARYMIME (RFC 6152 3, RFC 3030 3).

Body parts that need it are encoded anew, text in quoted-printable (base64 where that is shorter), the rest in
base64, and their Content-Transfer-Encoding says so. Multiparts and attached messages are gone into, because
they must not be encoded themselves (RFC 2045 6.4). Text that says nothing of MIME is given the fields it
lacks (RFC 1428). Header fields stay as they are, whatever octets are in them.

The result depends on the bytes alone, not on how they are cut, so that a message can be read twice, to be
signed and to be sent. Whether a part needs it is decided by its first 64 KiB: a longer one that looks clean
until there is encoded all the same. In a multipart/signed nothing is touched that can be sent as it is: the
signature would not fit any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from relaymail.message.recode_body import Base64, Body, Kept, Marked, RecodeError
from relaymail.message.recode_part import Conversion, Header, Leaf
from relaymail.message.transfer import encoding_of

__all__ = ["Conversion", "RecodeError", "Recoder"]

HEADER_OCTETS: Final = 256 * 1024
"""Octets of the longest header section: listeners take no longer ones."""
LOOK: Final = 64 * 1024
"""Octets of a part that are looked at before it is decided how to encode it."""
DEPTH: Final = 100
"""Multiparts inside each other."""
PARTS: Final = 10_000
"""Parts, however deep."""

_DELIMITER_OCTETS: Final = 2000
"""A line that begins with ``--`` and is longer is no delimiter of a multipart."""
_MESSAGES: Final = ("message/rfc822", "message/global")


class _Multipart(NamedTuple):
    boundary: bytes
    digest: bool
    signed: bool
    """Whether it is in a multipart/signed, or is one (RFC 1847 2.1)."""


_NONE: Final = _Multipart(b"", digest=False, signed=False)


class Recoder:
    """Converts a message that is fed to it in chunks. Memory holds a header section, or :data:`LOOK` octets
    of a part, and a chunk. Takes 5 to 50 ms for a megabyte: large chunks belong in a thread."""

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion
        self._buffer = b""
        self._at = 0
        self._line_begins = True
        """What is at :attr:`_at` begins a line."""
        self._header: Header | None = Header(of_message=True)
        self._leaf: Leaf | None = None
        """The part that is being read and not yet decided about."""
        self._body: Body = Kept()
        self._multiparts: list[_Multipart] = []
        """Around what is being read, outermost first."""
        self._delimiters: dict[bytes, tuple[int, bool]] = {}
        """The lines that end a part: which multipart's, and whether that ends with it."""
        self._parts = 0
        self._out: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those of the converted message that are certain by now.

        :raises RecodeError: it cannot be converted.
        """
        return self._advance(chunk, final=False)

    def finish(self) -> bytes:
        """The rest. Raises as :meth:`feed` does."""
        self._advance(b"", final=True)
        self._end_part()
        if isinstance(self._body, Base64):
            self._out.append(b"\r\n")
        if isinstance(self._body, Marked) and self._body.changed and self._body.must_end:
            raise RecodeError("a multipart without a part holds octets that cannot be sent")
        return self._flush()

    def _advance(self, chunk: bytes, *, final: bool) -> bytes:
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
        while self._read_header(final) if self._header is not None else self._read_body(final):
            pass
        return b"" if final else self._flush()

    def _flush(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    # Header sections

    def _read_header(self, final: bool) -> bool:
        """Read lines of a header section; whether it has ended."""
        assert self._header is not None
        while True:
            end = self._buffer.find(b"\n", self._at) + 1
            if not end:
                if not final:
                    self._check_header(len(self._buffer) - self._at)
                    return False
                end = len(self._buffer)
            line = self._buffer[self._at : end].removesuffix(b"\n").removesuffix(b"\r")
            if not line:
                self._at = end
                break
            if line.rstrip(b" \t") in self._delimiters or not self._header.take(line):
                break
            self._at = end
            self._check_header(0)
        self._line_begins = True
        self._begin_body()
        return True

    def _check_header(self, more: int) -> None:
        """:raises RecodeError: the header section with ``more`` octets is longer than any should be."""
        if self._header is not None and self._header.size + more > HEADER_OCTETS:
            raise RecodeError("a header section is too long")

    def _begin_body(self) -> None:
        """The header section has ended; what follows is as it says."""
        header, self._header = self._header, None
        assert header is not None
        around = self._multiparts[-1] if self._multiparts else _NONE
        digest = around.digest and not header.of_message
        media_type, given, encoding = header.content("message/rfc822" if digest else "text/plain")
        boundary = (given.octets("boundary") or b"").rstrip(b" \t")
        if media_type.startswith("multipart/") and 0 < len(boundary) < _DELIMITER_OCTETS // 2:
            self._out.append(header.encoded_as(None if around.signed else self._identity(encoding)))
            signed = around.signed or media_type == "multipart/signed"
            self._nest(_Multipart(boundary, media_type == "multipart/digest", signed))
            self._body = Marked(must_end=True)
        elif media_type in _MESSAGES and encoding_of(encoding) == "identity":
            self._out.append(header.encoded_as(None if around.signed else self._identity(encoding)))
            self._header = Header(of_message=True)
        else:
            self._leaf = Leaf(header, media_type, encoding, signed=around.signed)

    def _identity(self, encoding: bytes) -> str | None:
        """What a container says of its encoding (RFC 2045 6.4); ``None``: what it said before."""
        same = encoding in (b"", b"7bit") or (self._conversion == "8bit" and encoding == b"8bit")
        return None if same else self._conversion

    def _nest(self, multipart: _Multipart) -> None:
        if len(self._multiparts) >= DEPTH:
            raise RecodeError(f"more than {DEPTH} multiparts are inside each other")
        self._multiparts.append(multipart)
        self._index()

    def _index(self) -> None:
        self._delimiters = {}
        for level, multipart in enumerate(self._multiparts):
            self._delimiters[b"--" + multipart.boundary] = (level, False)
            self._delimiters[b"--" + multipart.boundary + b"--"] = (level, True)

    # Bodies

    def _read_body(self, final: bool) -> bool:
        """Read what is here of a body; whether a delimiter came."""
        buffer, at = self._buffer, self._at
        for begin in self._candidates():
            end = buffer.find(b"\n", begin, begin + _DELIMITER_OCTETS)
            if end < 0:
                if len(buffer) - begin >= _DELIMITER_OCTETS:
                    continue
                if not final:
                    self._take(_before_line_end(buffer, begin, at))
                    return False
                end = len(buffer)
            line = buffer[begin:end].rstrip(b"\r \t")
            if line in self._delimiters:
                self._take(_before_line_end(buffer, begin, at))
                self._at = min(end + 1, len(buffer))
                self._delimit(line, behind_line_end=begin > at)
                return True
        self._take(len(buffer) if final else self._certain())
        return False

    def _candidates(self) -> Iterator[int]:
        """Where lines begin that may be delimiters."""
        if not self._delimiters:
            return
        if self._line_begins and self._buffer.startswith(b"--", self._at):
            yield self._at
        found = self._at
        while (found := self._buffer.find(b"\n--", found)) >= 0:
            found += 1
            yield found

    def _certain(self) -> int:
        """Up to where no delimiter, nor the line end in front of it, can begin."""
        buffer, at = self._buffer, self._at
        begin = buffer.rfind(b"\n", at) + 1
        if not self._delimiters:
            return len(buffer)
        if (begin or self._line_begins) and buffer[begin or at :] in (b"", b"-"):
            return _before_line_end(buffer, begin or at, at)
        return len(buffer) - buffer.endswith(b"\r")

    def _take(self, end: int) -> None:
        """The current part has what is here until ``end``."""
        data = self._buffer[self._at : end]
        if not data:
            return
        self._at = end
        self._line_begins = False
        if self._leaf is None:
            self._out.append(self._body.feed(data))
        elif self._leaf.collect(data) > LOOK:
            self._decide(self._leaf)

    def _decide(self, leaf: Leaf) -> None:
        """It is known how the current part is to be sent."""
        self._leaf = None
        header, self._body, data = leaf.choice(self._conversion, LOOK)
        self._out += (header, self._body.feed(data))

    def _end_part(self) -> None:
        if self._leaf is not None:
            self._decide(self._leaf)
        self._out.append(self._body.finish())

    def _delimit(self, line: bytes, *, behind_line_end: bool) -> None:
        """A part has ended."""
        self._end_part()
        self._out.append(b"\r\n" * behind_line_end + line + b"\r\n")
        level, closes = self._delimiters[line]
        self._parts += 1
        if self._parts > PARTS:
            raise RecodeError(f"there are more than {PARTS} parts")
        inside = level + (not closes)
        if inside < len(self._multiparts):
            del self._multiparts[inside:]
            self._index()
        self._line_begins = True
        if closes:
            self._body = Marked(must_end=False)
        else:
            self._header = Header(of_message=False)


def _before_line_end(buffer: bytes, begin: int, at: int) -> int:
    """The offset of the line end in front of the line that begins at ``begin``, but not before ``at``."""
    if begin > at:
        begin -= 1
    if begin > at and buffer[begin - 1 : begin] == b"\r":
        begin -= 1
    return begin
