"""The octets of a message behind ``354``: no cut, no content and no trick ends it early."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from relaymail.smtp.client_transfer import DotStuffer
from relaymail.smtp.content import DataReader


def stuffed(*parts: bytes) -> bytes:
    stuffer = DotStuffer()
    return b"".join([stuffer.feed(part) for part in parts]) + stuffer.finish()


def reference(body: bytes) -> bytes:
    """The same, line by line."""
    lines = re.split(rb"\r\n|\n|\r", body)
    if lines[-1] == b"":
        lines.pop()
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


PIECE = st.sampled_from([b".", b"\r\n", b"\r", b"\n", b"..", b"a", b"QUIT", b"\r\n.\r\n", b"\0", b"\xff"])
PARTS = st.lists(st.lists(PIECE, max_size=6).map(b"".join), max_size=8)


@given(PARTS)
@example([b"a\r\n", b".\r\nMAIL FROM:<x@y>\r\n"])
@example([b"a\r", b"\n", b".", b"\r\n"])
@example([b"a\r\n.", b"\r\nQUIT\r\n"])
@example([b"a\n.", b"\nQUIT\n"])
@example([b"a\r.\r", b"QUIT\r\n"])
@example([b"", b".", b""])
def test_any_body_however_cut_gives_exactly_the_stuffed_stream(parts: list[bytes]) -> None:
    assert stuffed(*parts) == reference(b"".join(parts))


@given(PARTS)
def test_nothing_but_the_last_line_is_a_lone_dot(parts: list[bytes]) -> None:
    stream = stuffed(*parts)
    lines = stream.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert b"." not in lines[:-2]
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)


@given(PARTS)
def test_a_server_gets_the_body_back(parts: list[bytes]) -> None:
    reader = DataReader(1000)
    content, rest = reader.feed(stuffed(*parts))
    assert rest == b""
    assert not reader.bare_newline
    assert content == b"\r\n".join(_lines(b"".join(parts)))


def _lines(body: bytes) -> list[bytes]:
    lines = re.split(rb"\r\n|\n|\r", body)
    return lines if lines[-1] == b"" else [*lines, b""]


def test_an_empty_body_is_one_dot() -> None:
    assert stuffed() == b".\r\n"
    assert stuffed(b"") == b".\r\n"
