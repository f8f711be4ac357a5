"""The relaxed canonicalization of DKIM (RFC 6376 3.4.2, 3.4.4), whatever way the bytes are cut.

Only CRLF is a line end: that is what the next host gets. A message that does not end with one is taken as if
it did, for so it travels (RFC 5321 4.1.1.4).
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

_CRLF: Final = b"\r\n"
_SPACES: Final = re.compile(rb"[ \t]+")
# Only what is not canonical yet: a single space is passed over by the search
_UNEVEN: Final = re.compile(rb"[ \t]{2,}|\t")
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
_ENDS_BACKWARDS: Final = re.compile(rb"(?:\n\r)*+")
_ENDS_AT_ONCE: Final = 32 * 1024
"""Line ends that are hashed at once: a message may hold millions of empty lines."""


def relaxed_field(field: bytes) -> bytes:
    """A header field (RFC 6376 3.4.2), with the CRLF at its end, whether ``field`` has one or not."""
    name, _, value = field.partition(b":")
    value = _SPACES.sub(b" ", _FOLD.sub(b"", value.removesuffix(_CRLF))).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + value + _CRLF


class BodyHash:
    """SHA-256 of a body in its relaxed form (RFC 6376 3.4.4, 3.7).

    Memory holds no more than is given at a time.
    """

    __slots__ = ("_carry", "_digest", "_empty", "_ends")

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._empty = True
        self._ends = 0
        """Line ends that count only if more than line ends follows."""
        self._carry = b""
        """A space, a CR, or both, behind the line ends: what follows tells what becomes of them."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        if not data:
            return
        data = self._carry + data
        if b"\t" in data or b"  " in data:
            data = _UNEVEN.sub(b" ", data)
        data = data.replace(b" \r\n", _CRLF)
        end = len(data)
        if data.endswith(b"\r"):
            end -= 1
        if data[end - 1 : end] == b" ":
            end -= 1
        self._carry = data[end:]
        data = data[:end]
        tail = data[len(data.rstrip(_CRLF)) :]
        ends = _ENDS_BACKWARDS.match(tail[::-1])
        assert ends is not None
        text = data[: len(data) - ends.end()]
        if text:
            self._write_ends()
            self._digest.update(text)
            self._empty = False
        self._ends += ends.end() // 2

    def digest(self) -> bytes:
        """The hash; nothing can be fed behind it."""
        if self._carry.endswith(b"\r"):
            self._write_ends()
            self._digest.update(self._carry)
            self._empty = False
        if not self._empty:
            self._digest.update(_CRLF)
        return self._digest.digest()

    def _write_ends(self) -> None:
        while self._ends:
            now = min(self._ends, _ENDS_AT_ONCE)
            self._digest.update(_CRLF * now)
            self._ends -= now
