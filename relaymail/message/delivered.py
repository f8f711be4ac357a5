"""The message as a reader or the next host gets it, made of the bytes as received.

Mail from other hosts (MX) gets its trace headers in front, and nothing else of it is touched. Mail of our own
users is also mended (RFC 6409 8):

- Every line ends in CRLF; a bare LF, a bare CR and the ``CR CR LF`` of a twofold conversion are line ends.
- ``Bcc:`` and ``Resent-Bcc:`` fields are gone (RFC 5322 3.6.3).
- ``Message-ID:``, ``Date:`` and ``Sender:`` stand in front where they were missing. A Message-ID that nobody
  can use is replaced, so that the header and the columns agree.
- A line in front of the first field that is none (of a mailbox file, a byte order mark, the rest of a fold)
  is gone: behind the fields that we put in front it would end the header section, or continue ours.
- Where the header section ends at a line that is no field, the empty line that is missing there is put in, so
  that no two readers disagree on what is header.

Everything else is byte for byte what was received. Memory holds the header section, which the listener has
limited, and no more of the body than is given at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final

from relaymail.message import references
from relaymail.message.headers import text_of

FIELD_NAME_OCTETS: Final = 256 * 1024
"""A line without a colon within so many octets is no field: the header section is not allowed more."""

# Atomic: a CRLF must never be taken for two line ends
_LINE_END: Final = re.compile(rb"(?>\r\r?\n|\n|\r)")
_FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:")
_BOM: Final = b"\xef\xbb\xbf"
_BLIND: Final = frozenset({b"bcc", b"resent-bcc"})
_CRLF: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Fixes:
    """What a submitted message is given where it lacks it."""

    message_id: str
    """Without ``<>``; the one in the columns."""
    date: datetime
    """When it was received, aware."""
    sender: str | None = None
    """The address of the login, where From: does not tell who sent it (RFC 6409 8.1)."""
    binary: bool = False
    """Whether it came with ``BODY=BINARYMIME`` (RFC 3030): then the body has no line ends to mend."""


def delivered(raw: Iterable[bytes], trace: bytes, fixes: Fixes | None) -> Iterator[bytes]:
    """The delivered form of the message whose bytes as received are ``raw``, in chunks; never an empty one.

    ``trace`` are its trace headers, each line ended with CRLF. ``fixes`` is ``None`` for mail of the MX.
    """
    form = DeliveredForm(trace, fixes)
    for chunk in raw:
        if piece := form.feed(chunk):
            yield piece
    if piece := form.finish():
        yield piece


class DeliveredForm:
    """The same for whoever gets the chunks one at a time: what goes in comes out, sooner or later."""

    def __init__(self, trace: bytes, fixes: Fixes | None) -> None:
        self._front = trace
        self._fixes = fixes
        self._header = None if fixes is None else _Header()
        self._line_ends = None if fixes is None or fixes.binary else _LineEnds()

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those of the delivered form that are certain by now."""
        if self._header is not None:
            body = self._header.feed(chunk)
            if body is None:
                return b""
            return self._begin() + self._body(body)
        return self._begin() + self._body(chunk)

    def finish(self) -> bytes:
        """The rest."""
        rest = b""
        if self._header is not None:
            body = self._header.finish()
            rest = self._begin() + self._body(body)
        if self._line_ends is not None:
            rest += self._line_ends.finish()
        return self._begin() + rest

    def _begin(self) -> bytes:
        """What stands in front of the body, once."""
        front, self._front = self._front, b""
        header, self._header = self._header, None
        if header is not None:
            assert self._fixes is not None
            front += header.mended(self._fixes)
        return front

    def _body(self, chunk: bytes) -> bytes:
        return chunk if self._line_ends is None else self._line_ends.feed(chunk)


class _LineEnds:
    """Makes every line end a CRLF, whatever way the bytes are cut."""

    def __init__(self) -> None:
        self._carry = b""

    def feed(self, chunk: bytes) -> bytes:
        data = self._carry + chunk
        # Two CRs at most may belong to a line end that is not here yet
        returns = min(len(data) - len(data.rstrip(b"\r")), 2)
        cut = len(data) - returns
        self._carry = data[cut:]
        return _with_crlf(data[:cut])

    def finish(self) -> bytes:
        carry, self._carry = self._carry, b""
        return _with_crlf(carry)


def _with_crlf(data: bytes) -> bytes:
    ends = data.count(_CRLF)
    if data.count(b"\n") == ends and data.count(b"\r") == ends:
        return data
    return _LINE_END.sub(_CRLF, data)


class _Header:
    """Reads the header section, by the same rules as :func:`~relaymail.message.headers.scan`."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        """Octets of the buffer known to hold no line end."""
        self._lines = 0
        self._fields: list[tuple[bytes, list[bytes]]] = []
        """Name in lower case, and the lines of each field, line ends included."""
        self._separator = b""
        """The empty line behind the section, if there is to be one."""

    def feed(self, chunk: bytes) -> bytes | None:
        """Take the next bytes. Once the section has ended, return those of the body."""
        self._buffer += chunk
        return self._read(final=False)

    def finish(self) -> bytes:
        """There are no more bytes: the section ends here. Returns those of the body."""
        body = self._read(final=True)
        return b"" if body is None else body

    def mended(self, fixes: Fixes) -> bytes:
        """The section as it is delivered, the empty line behind it included."""
        fields = [(name, lines) for name, lines in self._fields if name not in _BLIND]
        added = []
        if not _has_usable_id(fields):
            fields = [(name, lines) for name, lines in fields if name != b"message-id"]
            added.append(f"Message-ID: <{fixes.message_id}>\r\n")
        names = {name for name, _ in fields}
        if b"date" not in names:
            at = fixes.date.astimezone(UTC).replace(microsecond=0)
            added.append(f"Date: {format_datetime(at)}\r\n")
        if fixes.sender is not None and b"sender" not in names:
            added.append(f"Sender: {fixes.sender}\r\n")
        kept = b"".join([line for _, lines in fields for line in lines])
        return "".join(added).encode() + kept + self._separator

    def _read(self, *, final: bool) -> bytes | None:
        """Read the lines that are complete; the bytes of the body once the section has ended."""
        buffer = self._buffer
        at = 0
        if self._lines == 0:
            if not final and len(buffer) < len(_BOM) and _BOM.startswith(buffer):
                return None
            if buffer.startswith(_BOM):
                at = len(_BOM)
        while True:
            found = _LINE_END.search(buffer, max(at, self._searched))
            # A CR may be the first of a line end of two or three
            complete = found is not None and (
                final or found[0] != b"\r" or bytes(buffer[found.end() : found.end() + 2]) not in (b"", b"\r")
            )
            end = len(buffer) if found is None else found.start()
            if not complete and not final:
                if end - at >= FIELD_NAME_OCTETS and not self._is_header(bytes(buffer[at:end])):
                    return self._ends(at)
                self._keep(at, end)
                return None
            line, at_line = bytes(buffer[at:end]), at
            at = end if found is None else found.end()
            if not line:
                self._separator = _CRLF if found is not None else b""
                return bytes(buffer[at:])
            if not self._is_header(line):
                return self._ends(at_line)
            self._take(line, b"" if found is None else _CRLF)
            if found is None:
                return b""

    def _keep(self, at: int, searched: int) -> None:
        """Go on later: the line that begins at ``at`` is not complete."""
        if self._lines:
            del self._buffer[:at]
            self._searched = searched - at
        else:
            # A byte order mark is only looked for in front of the first line
            self._searched = searched

    def _ends(self, at: int) -> bytes:
        """The line at ``at`` is no field: the body begins with it."""
        self._separator = _CRLF
        return bytes(self._buffer[at:])

    def _is_header(self, line: bytes) -> bool:
        """Whether the line belongs to the header section; its first octets, if it is long, tell already."""
        return (
            line[:1] in b" \t"
            or _FIELD.match(line, 0, FIELD_NAME_OCTETS) is not None
            or (self._lines == 0 and line.startswith((b"From ", b">From ")) and len(line) < FIELD_NAME_OCTETS)
        )

    def _take(self, line: bytes, end: bytes) -> None:
        self._lines += 1
        if line[:1] in b" \t":
            if self._fields:
                self._fields[-1][1].append(line + end)
        elif field := _FIELD.match(line):
            self._fields.append((field[1].lower(), [line + end]))


def _has_usable_id(fields: list[tuple[bytes, list[bytes]]]) -> bool:
    """Whether the columns could take the Message-ID: they look at the first field of that name, too."""
    for name, lines in fields:
        if name == b"message-id":
            value = b"".join([line.removesuffix(_CRLF) for line in lines]).partition(b":")[2]
            return references.message_id(text_of(value.strip(b" \t"))) is not None
    return False
