"""Command lines: what is read, and that nothing a client sends raises anything but a refusal."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.smtp import command, reply, sasl
from relaymail.smtp.address import Address
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.sasl import Challenge, Credentials

keywords = st.from_regex(r"[A-Z0-9][A-Z0-9-]{0,15}", fullmatch=True)
values = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1)
parameters = st.dictionaries(keywords, st.none() | values, max_size=6)


def refused(act: Callable[[], object]) -> Reply | None:
    """The refusal that ``act`` raises, if it does."""
    try:
        act()
    except ReplyError as refusal:
        return refusal.reply
    return None


def converse(exchange: sasl.Plain | sasl.Login, lines: list[bytes]) -> None:
    step: Challenge | Credentials = exchange.respond(None)
    for line in lines:
        if isinstance(step, Credentials):
            break
        step = exchange.respond(sasl.decode(line))


def printed(parameters: command.Parameters) -> str:
    return "".join(f" {name}" if value is None else f" {name}={value}" for name, value in parameters.items())


@given(parameters)
def test_parameters_are_read_as_they_are_given(given_: command.Parameters) -> None:
    text = f"<a@b.example>{printed(given_)}"
    address = Address("a", "b.example")
    assert command.mail_argument(f"FROM:{text}", utf8=False) == (address, given_)
    assert command.recipient_argument(f"to:{text}", utf8=False) == (address, given_)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=100).map(str.encode),
        st.text("<>@:= \taé\x00\x85\u2028-[]", max_size=40).map(lambda text: b"MAIL FROM:" + text.encode()),
    ),
    st.booleans(),
)
def test_nothing_but_a_refusal_is_raised(line: bytes, utf8: bool) -> None:
    command.is_http(line)
    for read in (command.mail_argument, command.recipient_argument):
        answer = refused(lambda read=read: read(command.split(line)[1], utf8=utf8))  # type: ignore[misc]
        if answer is not None:
            assert answer.code in {500, 501, 553, 555}
            assert answer.data.isascii()
            assert answer.data.count(b"\n") == 1
            assert len(answer.data) <= 512


@given(st.lists(st.binary(max_size=60) | st.text("A=*/+ \x00é", max_size=20).map(str.encode), max_size=4))
def test_no_exchange_raises_anything_but_a_refusal(lines: list[bytes]) -> None:
    for mechanism in sasl.MECHANISMS.values():
        answer = refused(lambda mechanism=mechanism: converse(mechanism(), lines))  # type: ignore[misc]
        assert answer is None or answer.code in {501, 535}


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"noop", "NOOP", ""),
        (b"NOOP ", "NOOP", ""),
        (b"Mail  FROM:<> ", "MAIL", "FROM:<>"),
        (b"VRFY \t a b\t", "VRFY", "a b"),
        (b" NOOP", "", "NOOP"),
        (b"", "", ""),
        ("EHLO é".encode(), "EHLO", "é"),
    ],
)
def test_a_line_is_a_verb_and_an_argument(line: bytes, verb: str, argument: str) -> None:
    assert command.split(line) == (verb, argument)


@pytest.mark.parametrize(
    "line",
    [b"NO\x00OP", b"NOOP \x1b[2J", b"NOOP \xff", b"NOOP a\x7f", "NOOP \x9b".encode(), "\u2028".encode()],
)
def test_what_no_command_can_hold(line: bytes) -> None:
    with pytest.raises(ReplyError) as refusal:
        command.split(line)
    assert refusal.value.reply is reply.UNKNOWN_COMMAND


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("", "501 5.5.4"),
        ("<a@b.example>", "501 5.5.4"),
        ("FROM <a@b.example>", "501 5.5.4"),
        ("FROM:a@b.example", "501 5.5.4"),
        ("FROM:<a@b.example>SIZE=1", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=1 size=2", "501 5.5.4"),
        ("FROM:<a@b.example> =1", "501 5.5.4"),
        ("FROM:<a@b.example> SIZE=", "501 5.5.4"),
        ("FROM:<a@b.example> A=b=c", "501 5.5.4"),
        ("FROM:<a b@c.example>", "501 5.1.7"),
        ("FROM:<postmaster>", "501 5.1.7"),
        ("FROM:<é@b.example>", "553 5.6.7"),
        ("FROM:<a@é.example>", "553 5.6.7"),
    ],
)
def test_what_mail_does_not_take(argument: str, answer: str) -> None:
    with pytest.raises(ReplyError) as refusal:
        command.mail_argument(argument, utf8=True)
    assert refusal.value.reply.data.decode().startswith(answer)


def test_a_blank_behind_the_colon_is_forgiven() -> None:
    assert command.mail_argument("FROM: <a@b.example>", utf8=False)[0] == Address("a", "b.example")


def test_an_internationalized_sender_comes_with_smtputf8_in_an_esmtp_session() -> None:
    argument = "FROM:<é@b.example> SMTPUTF8"
    assert command.mail_argument(argument, utf8=True)[0] == Address("é", "b.example")
    with pytest.raises(ReplyError):
        command.mail_argument(argument, utf8=False)


@pytest.mark.parametrize(
    "line",
    [
        b"MAIL FROM:<a@b.example>" + b" A=1" * 500,
        b"MAIL FROM:<a@b.example>" + b" " * 2020,
        b"MAIL FROM:<a@b.example> " + b"A" * 2000,
        b"MAIL FROM:<a@b.example> " + b"A-" * 1000 + b"=",
        b"MAIL FROM:" + b" " * 2030,
        b"MAIL " + b"FROM:" * 400,
        b"MAIL FROM:<a@b.example> AUTH=" + "é".encode() * 1000,
    ],
)
def test_a_line_of_2048_octets_is_read_in_no_time(line: bytes) -> None:
    began = time.process_time()
    for _ in range(10):
        refused(lambda: command.mail_argument(command.split(line)[1], utf8=True))
    assert time.process_time() - began < 5, "a backtracking pattern takes minutes"


@given(st.text(max_size=300))
def test_a_reply_is_one_line_of_printable_ascii(text: str) -> None:
    data = Reply(500, "5.5.2", text).data
    assert all(32 <= octet < 127 for octet in data[:-2])
    assert data.endswith(b"\r\n")
