"""What a client has to know of a message before it is sent: its size, and what octets are in it."""

from __future__ import annotations

import re
from typing import Final

HEADER_OCTETS: Final = 256 * 1024
"""A header section that has no end within so many octets ends there: listeners take no longer ones."""

# Atomic: a CRLF must never be taken for two line ends
_LINE_END: Final = re.compile(rb"(?>\r\n|\n|\r)")
_FIELD: Final = re.compile(rb"[!-9;-~]++[ \t]*+:")


class ContentScan:
    """Feed it all of a message, cut as you like, then :meth:`finish`."""

    __slots__ = ("_cr", "_header", "binary", "eight_bit", "size", "utf8_header")

    def __init__(self) -> None:
        self.size = 0
        """Octets."""
        self.eight_bit = False
        """Octets over 127 in the body."""
        self.utf8_header = False
        """Octets over 127 in the header section."""
        self.binary = False
        """A bare CR or LF or a NUL, anywhere: only BDAT can send the message as it is."""
        self._header: bytearray | None = bytearray()
        self._cr = False
        """The last octet was a CR."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next octets."""
        if not chunk:
            return
        self.size += len(chunk)
        if not self.binary:
            self._look_for_binary(chunk)
        if self._header is None:
            if not chunk.isascii():
                self.eight_bit = True
            return
        before = len(self._header)
        self._header += chunk
        end = self._header.find(b"\r\n\r\n", max(before - 3, 0))
        if end >= 0 or len(self._header) >= HEADER_OCTETS:
            self._end_header()

    def finish(self) -> None:
        """There are no more."""
        if self._header is not None:
            self._end_header()
        if self._cr:
            self.binary = True

    def _look_for_binary(self, chunk: bytes) -> None:
        if self._cr and chunk[0] != 10:
            self.binary = True
        begin = 1 if self._cr and chunk[0] == 10 else 0
        self._cr = chunk[-1] == 13
        ends = chunk.count(b"\r\n")
        lone = chunk.count(b"\n") - begin - ends or chunk.count(b"\r") - self._cr - ends
        if lone or b"\0" in chunk:
            self.binary = True

    def _end_header(self) -> None:
        """Tell header section and body apart."""
        octets = bytes(self._header or b"")
        self._header = None
        if octets.isascii():
            return
        end = end_of_header(octets)
        self.utf8_header = not octets[:end].isascii()
        self.eight_bit = not octets[end:].isascii()


def is_header_line(line: bytes, first: bool) -> bool:
    """Whether a line, without its line end, belongs to a header section and does not end it.

    :param first: it is the first one, which a mailbox file may have put there.
    """
    return (
        line[:1] in (b" ", b"\t")
        or _FIELD.match(line) is not None
        or (first and line.startswith((b"From ", b">From ")))
    )


def end_of_header(octets: bytes) -> int:
    """The offset of the empty line, or of the first line that is no field; the length if there is none."""
    at = 0
    while at < len(octets):
        found = _LINE_END.search(octets, at)
        end, behind = (len(octets), len(octets)) if found is None else found.span()
        if not is_header_line(octets[at:end], at == 0):
            return at
        at = behind
    return at
