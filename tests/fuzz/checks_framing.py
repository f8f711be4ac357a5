"""The end of DATA and the transfer encodings, cut in every way.

The first octet chooses the cuts and the limits, the rest is what a client sends behind ``354``; the same
octets are then read as an encoded body.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Final

from relaymail.message import transfer
from relaymail.smtp.content import DataReader

TERMINATOR: Final = b"\r\n.\r\n"
BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n)")


def check(data: bytes) -> None:
    """Read ``data`` whole and cut."""
    seed, body = (data[0], data[1:]) if data else (0, b"")
    limit = (10, 70, 64 * 1024)[seed % 3]
    expected = _reference(body, limit)
    for pieces in ([body], list(cut(body, random.Random(seed))), [body[i : i + 1] for i in range(len(body))]):
        assert _read(pieces, limit) == expected
    for encoding in ("base64", "quoted-printable"):
        _check_transfer(body, encoding, random.Random(seed))


def cut(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """``data`` in pieces: mostly small ones, for the borders are where things happen."""
    position = 0
    while position < len(data):
        size = chance.choice((1, 1, 2, 3, 5, 8, 40, 300))
        yield data[position : position + size]
        position += size


def unstuffed(body: bytes) -> tuple[bytes, bytes | None]:
    """The content of what came behind 354, and what is behind its end; written to be read, not to be fast."""
    stream = b"\r\n" + body
    end = stream.find(TERMINATOR)
    text, rest = (stream, None) if end < 0 else (stream[: end + 2], stream[end + len(TERMINATOR) :])
    lines = text.split(b"\r\n")
    return b"\r\n".join([line.removeprefix(b".") for line in lines])[2:], rest


def _reference(body: bytes, limit: int) -> tuple[bytes, bytes, bool, bool] | None:
    content, rest = unstuffed(body)
    if rest is None:
        return None
    # A line as long as the limit is just allowed; its CR is counted along, whether it is there or not
    long_line = any(len(line) > limit + 1 for line in content.split(b"\n"))
    return content, rest, BARE.search(content) is not None, long_line


def _read(pieces: list[bytes], limit: int) -> tuple[bytes, bytes, bool, bool] | None:
    reader = DataReader(limit)
    content: list[bytes] = []
    for number, piece in enumerate(pieces):
        text, rest = reader.feed(piece)
        content.append(text)
        if rest is not None:
            behind = rest + b"".join(pieces[number + 1 :])
            return b"".join(content), behind, reader.bare_newline, reader.long_line
    return None


def _check_transfer(body: bytes, encoding: transfer.Encoding, chance: random.Random) -> None:
    """A body read at once and one read in pieces are the same bytes."""
    whole = transfer.decode_short(body, encoding)
    chunks = transfer._base64 if encoding == "base64" else transfer._quoted_printable
    pieces = list(chunks(cut(body, chance)))
    assert all(pieces)
    assert b"".join(pieces) == whole
    assert b"".join(transfer.decode(body, 0, len(body), encoding)) == whole
