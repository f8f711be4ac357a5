"""Builds raw messages for the tests, line by line, with the line end under test."""

from __future__ import annotations

import base64

from relaymail.message.limits import Budget, ParseLimits
from relaymail.message.summary import Attachment


def lines(*each: str | bytes, end: bytes = b"\r\n") -> bytes:
    """The lines, UTF-8 where they are text, each with a line end."""
    return b"".join((line.encode() if isinstance(line, str) else line) + end for line in each)


def base64_lines(data: bytes) -> bytes:
    """``data`` in base64, in lines of 76 characters with CRLF."""
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def budget(limits: ParseLimits | None = None) -> Budget:
    """A budget that never runs out of time."""
    return Budget(limits or ParseLimits(), lambda: 0.0)


def content(raw: bytes, attachment: Attachment) -> bytes:
    """The decoded bytes of an attachment, its size and the size of its pieces checked."""
    pieces = list(attachment.decode(raw))
    assert all(0 < len(piece) <= 256 * 1024 for piece in pieces)
    whole = b"".join(pieces)
    assert len(whole) == attachment.size
    return whole
