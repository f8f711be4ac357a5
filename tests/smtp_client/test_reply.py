"""Replies of the next host, as they are read from the stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.smtp.client_reply import (
    LINE_OCTETS,
    LINES,
    REPLY_OCTETS,
    SHOWN_CHARACTERS,
    BadReply,
    RemoteReply,
    ReplyReader,
)


def read(*packets: bytes) -> tuple[list[RemoteReply], str | None]:
    """The replies in the packets, and what is wrong with what comes behind them."""
    reader = ReplyReader()
    replies: list[RemoteReply] = []
    try:
        for packet in packets:
            replies.extend(reader.feed(packet))
    except BadReply as error:
        # extend keeps what a generator gave before it raised
        return replies, str(error)
    return replies, None


def only(data: bytes) -> RemoteReply:
    (reply,), wrong = read(data)
    assert wrong is None
    return reply


def test_reads_code_enhanced_status_and_text() -> None:
    reply = only(b"550 5.1.1 No such user\r\n")
    assert (reply.code, reply.enhanced, reply.status) == (550, "5.1.1", "5.1.1")
    assert reply.lines == ("5.1.1 No such user",)
    assert str(reply) == reply.exact == "550 5.1.1 No such user"


def test_reads_several_lines() -> None:
    reply = only(b"250-one\r\n250-2.0.0 two\r\n250\r\n")
    assert reply.lines == ("one", "2.0.0 two", "")
    assert reply.exact == "250-one\n250-2.0.0 two\n250 "
    assert str(reply) == "250 one 2.0.0 two"


def test_a_line_may_end_in_a_bare_lf() -> None:
    assert only(b"250-a\n250 b\n").lines == ("a", "b")


@pytest.mark.parametrize(
    ("line", "enhanced", "status"),
    [
        (b"250 2.1.5 fine", "2.1.5", "2.1.5"),
        (b"550 no", None, "5.0.0"),
        (b"450 no", None, "4.2.0"),
        (b"452 no", None, "4.3.1"),
        (b"554 no", None, "5.0.0"),
        (b"552 no", None, "5.0.0"),
        (b"421 bye", None, "4.3.2"),
        (b"220 mx.example.test ESMTP", None, "2.0.0"),
        (b"550 4.7.1 of another class", None, "5.0.0"),
        (b"450 5.7.1 of another class", None, "4.2.0"),
        (b"550 5.7.1234 too long", None, "5.0.0"),
        (b"550 5.7.1.2 an address", None, "5.0.0"),
        (b"550 5.7.1", "5.7.1", "5.7.1"),
        (b"550 5.7.1: with a colon", "5.7.1", "5.7.1"),
    ],
)
def test_the_status_is_of_the_class_of_the_code(line: bytes, enhanced: str | None, status: str) -> None:
    reply = only(line + b"\r\n")
    assert (reply.enhanced, reply.status) == (enhanced, status)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"25 no\r\n",
        b"2500 no\r\n",
        b"150 no\r\n",
        b"600 no\r\n",
        b"250+no\r\n",
        b"\x16\x03\x01\r\n",
        b"250-one\r\n251 two\r\n",
        b"250-one\r\ntwo\r\n",
        b" 250 one\r\n",
    ],
)
def test_what_is_no_reply_is_told(data: bytes) -> None:
    replies, wrong = read(data)
    assert replies == []
    assert wrong is not None
    assert wrong.isprintable()


def test_replies_before_what_is_none_count() -> None:
    (reply,), wrong = read(b"250 fine\r\nnonsense\r\n")
    assert reply.code == 250
    assert wrong is not None


def test_a_line_that_does_not_end_is_not_kept() -> None:
    assert read(b"250 " + b"x" * REPLY_OCTETS)[1] is not None
    assert read(b"250 " + b"x" * (REPLY_OCTETS - 4) + b"\r\n")[1] is None
    assert read(b"250 " + b"x" * (REPLY_OCTETS - 3) + b"\r\n")[1] is not None
    assert read(b"250-" + b"x" * (REPLY_OCTETS - 100) + b"\r\n250 " + b"x" * 100 + b"\r\n")[1] is not None


@pytest.mark.parametrize(("code", "status"), [(250, "2.0.0"), (550, "5.1.1"), (450, "4.2.0")])
def test_a_long_line_says_what_it_says(code: int, status: str) -> None:
    # Behind the final dot, a 250 that is not understood is a message sent again and again
    text = f"{status} ".encode() + b"x" * 10_000
    reply = only(b"%d-%s\r\n%d %s\r\n" % (code, text, code, text))
    assert (reply.code, reply.status) == (code, status)
    assert [len(line) for line in reply.lines] == [LINE_OCTETS - 4] * 2


def test_a_reply_that_does_not_end_is_not_kept() -> None:
    assert read(b"250-x\r\n" * LINES)[1] is not None
    assert read(b"250-x\r\n" * (LINES - 1) + b"250 x\r\n")[1] is None
    long = b"250-" + b"x" * 2000 + b"\r\n"
    assert read(long * (REPLY_OCTETS // len(long) + 1))[1] is not None


def test_control_characters_are_not_shown() -> None:
    reply = only(b"550 5.7.1 \x1b[31mred\x07\xff\xc3\xa9\r\n")
    assert reply.lines == ("5.7.1 \\x1b[31mred\\x07\\xffé",)
    assert only(b"550 a\rb\r\n").lines == ("a\\rb",)


def test_a_long_reply_is_shown_in_part() -> None:
    reply = only((b"250-" + b"x" * 1000 + b"\r\n") * 20 + b"250 x\r\n")
    assert len(reply.exact) == len(str(reply)) == SHOWN_CHARACTERS
    assert len(reply.lines) == 21


LINE = st.one_of(
    st.sampled_from([b"250 ok", b"250-more", b"251 ok", b"550 5.1.1 no", b"354", b"x", b"", b"250-\xff\r"]),
    st.binary(max_size=12).map(lambda text: b"250 " + text),
    st.just(b"250 " + b"x" * LINE_OCTETS),
    st.just(b"250-" + b"x" * (REPLY_OCTETS // 2)),
)


@given(
    st.lists(st.tuples(LINE, st.sampled_from([b"\r\n", b"\n"])), max_size=12),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_the_cut_into_packets_changes_nothing(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    borders = [0, *sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]
    packets = [stream[a:b] for a, b in pairwise(borders)]
    assert read(*packets) == read(stream)
    if len(stream) < 500:
        assert read(*(bytes([octet]) for octet in stream)) == read(stream)
