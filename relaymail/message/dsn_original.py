"""What a report returns of the original (RFC 6522 3, RFC 6533 6): all of it, or its header section."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from typing import Final

from relaymail.message.dsn_part import Part

_CRLF: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_LONGEST_LINE: Final = 998
_NEXT_FIELD: Final = re.compile(rb"\r\n(?=[!-9;-~]++:)")
_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")


@dataclass(frozen=True, slots=True)
class Original:
    """The original as far as it is returned."""

    header: bytes
    """The header section, each line ended with CRLF; perhaps only its first fields."""
    body: bytes | None
    """``None``: it is not returned."""


class Excerpt:
    """Reads as much of a message in its delivered form as will be returned.

    :param limit: octets returned at most.
    :param whole: whether the body is to be returned, if everything is within the limit.
    """

    def __init__(self, limit: int, *, whole: bool) -> None:
        self._limit = limit
        self._whole = whole
        self._read = bytearray()

    def feed(self, part: bytes) -> bool:
        """Take the next bytes; returns whether more of them are of use."""
        self._read += part[: self._limit + 1 - len(self._read)]
        if len(self._read) > self._limit:
            return False
        return self._whole or _END not in self._read

    def finish(self) -> Original:
        """What was read, as it is returned."""
        data = bytes(self._read)
        complete = len(data) <= self._limit
        if data.startswith(_CRLF):
            return Original(b"", data[2:] if self._whole and complete else None)
        end = data.find(_END)
        if end >= 0:
            body = data[end + len(_END) :] if self._whole and complete else None
            return Original(data[: end + 2], body)
        if complete:
            return Original(data if data.endswith(_CRLF) or not data else data + _CRLF, None)
        return Original(_whole_fields(data), None)


def _whole_fields(data: bytes) -> bytes:
    """The header section without the field that the limit cut; half of one is better than none at all."""
    for found in reversed(list(_NEXT_FIELD.finditer(data))):
        return data[: found.end()]
    return data[: data.rfind(_CRLF) + 2] or data.rstrip(b"\r") + _CRLF


def original_part(original: Original) -> Part:
    """The third part of the report.

    A body that no part of 7 or 8 bits can carry (NUL, bare line ends, endless lines) is not returned; a
    header section like that is encoded, which only ``text/rfc822-headers`` allows.
    """
    header, body = original.header, original.body
    utf8 = not header.isascii()
    sound = _sound(header) and (not utf8 or _is_utf8(header))
    if body is not None and sound and _sound(body):
        return Part("message/global" if utf8 else "message/rfc822", header + _CRLF + body)
    if not sound:
        return Part("text/rfc822-headers", _quoted_printable(header), encoding="quoted-printable")
    return Part("message/global-headers" if utf8 else "text/rfc822-headers", header)


def _quoted_printable(header: bytes) -> bytes:
    """Line for line: what is no line end among CR and LF is encoded like every other octet."""
    lines = [binascii.b2a_qp(line, istext=False) for line in header.split(_CRLF)]
    return _CRLF.join(lines).replace(b"=\n", b"=\r\n")


def _sound(data: bytes) -> bool:
    """Whether it can be sent as lines of 7 or 8 bits (RFC 2045 2.7, 2.8)."""
    return _BARE.search(data) is None and max(map(len, data.split(_CRLF))) <= _LONGEST_LINE


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
