"""The form in which a message leaves: mended where it was submitted, else as it came."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relaymail.message.delivered import FIELD_NAME_OCTETS, DeliveredForm, Fixes, delivered
from relaymail.message.summary import summarize
from tests.message.build import lines

FIXES = Fixes("made.up@relaymail.example.test", datetime(2026, 1, 2, 3, 4, 5, 678, UTC))
TRACE = b"Received: from client\r\n\tby us;\r\n\tFri, 2 Jan 2026 03:04:05 +0000\r\n"
ADDED_ID = b"Message-ID: <made.up@relaymail.example.test>\r\n"
ADDED_DATE = b"Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n"
COMPLETE = lines("Message-ID: <a@b.org>", "Date: Thu, 1 Jan 2026 00:00:00 +0000", "From: a@b.org")


def mended(raw: bytes, fixes: Fixes = FIXES) -> bytes:
    """The fixes alone."""
    return b"".join(delivered([raw], b"", fixes))


def cut(raw: bytes, *at: int) -> list[bytes]:
    """``raw`` in pieces, some of them perhaps empty."""
    places = [0, *sorted(place % (len(raw) + 1) for place in at), len(raw)]
    return [raw[a:b] for a, b in pairwise(places)]


FRAGMENTS = [
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b":",
        b"x",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(
        b"Bcc: ",
        b"bCC\t :",
        b"Resent-Bcc:",
        b"Bccx: ",
        b"X-Bcc: ",
        b"Message-ID: ",
        b"Message-Id:",
        b"<a@b.org>",
    ),
    *(
        b"Date: ",
        b"Sender: ",
        b"From: ",
        b"From x",
        b">From ",
        b"Subject: ",
        b"a@b.org",
        b"no field",
        b".\r\n",
    ),
]
raws = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(b"".join)
fixes = st.sampled_from([FIXES, replace(FIXES, sender="ann@example.test"), replace(FIXES, binary=True)])


def expected(raw: bytes, fixes: Fixes) -> bytes:
    """The same by the book, with all of it in memory."""
    text = re.sub(rb"(?>\r\r?\n|\n|\r)", b"\r\n", raw.removeprefix(b"\xef\xbb\xbf"))
    fields: list[bytes] = []
    body = b""
    position = number = 0
    separator = b""
    while position < len(text):
        end = text.find(b"\r\n", position)
        end = len(text) if end < 0 else end + 2
        line = text[position:end]
        if line == b"\r\n":
            separator, position = line, end
            break
        if line[:1] in b" \t":
            if fields:
                fields[-1] += line
        elif re.match(rb"[!-9;-~]+[ \t]*:", line):
            fields.append(line)
        elif not (number == 0 and re.match(rb">?From ", line)):
            separator = b"\r\n"
            break
        position, number = end, number + 1
    body = text[position:]
    if fixes.binary and body:
        # It begins behind as many line ends in the raw bytes
        starts = [0, *(found.end() for found in re.finditer(rb"(?>\r\r?\n|\n|\r)", raw))]
        body = raw[starts[text[:position].count(b"\r\n")] :]
        if position == 0:
            body = body.removeprefix(b"\xef\xbb\xbf")

    def named(field: bytes) -> bytes:
        return field.partition(b":")[0].rstrip(b" \t").lower()

    fields = [field for field in fields if named(field) not in {b"bcc", b"resent-bcc"}]
    added = b""
    if summarize(b"".join(fields) + b"\r\n").message_id is None:
        fields = [field for field in fields if named(field) != b"message-id"]
        added += ADDED_ID
    if b"date" not in map(named, fields):
        added += ADDED_DATE
    if fixes.sender and b"sender" not in map(named, fields):
        added += b"Sender: " + fixes.sender.encode() + b"\r\n"
    return added + b"".join(fields) + separator + body


@given(raws, fixes)
@example(b"a\r\nX: y\r\n\r\n\r\r", FIXES)
def test_nothing_but_the_named_fixes_changes(raw: bytes, fixes: Fixes) -> None:
    assert mended(raw, fixes) == expected(raw, fixes)


@given(raws, fixes, st.lists(st.integers(0, 1000), max_size=6))
def test_any_way_of_cutting_gives_the_same(raw: bytes, fixes: Fixes, at: list[int]) -> None:
    whole = b"".join(delivered([raw], TRACE, fixes))
    assert b"".join(delivered(cut(raw, *at), TRACE, fixes)) == whole
    assert b"".join(delivered([raw[n : n + 1] for n in range(len(raw))], TRACE, fixes)) == whole


@given(raws, fixes)
def test_what_is_mended_is_mended(raw: bytes, fixes: Fixes) -> None:
    once = mended(raw, fixes)
    assert mended(once, fixes) == once


@given(raws)
def test_the_next_reader_finds_what_it_needs_and_nobody_hidden(raw: bytes) -> None:
    result = mended(raw)
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", result)
    summary = summarize(result)
    assert summary.has_date
    assert summary.message_id == (summarize(raw).message_id or FIXES.message_id)
    header = result.partition(b"\r\n\r\n")[0]
    assert not re.search(rb"^(resent-)?bcc[ \t]*:", header, re.IGNORECASE | re.MULTILINE)


@given(st.binary(max_size=200), st.lists(st.integers(0, 1000), max_size=4))
def test_mail_from_other_hosts_only_gets_its_trace_in_front(raw: bytes, at: list[int]) -> None:
    assert b"".join(delivered(cut(raw, *at), TRACE, None)) == TRACE + raw


@given(st.binary(max_size=300).filter(lambda body: not re.search(rb"(?<!\r)\n|\r(?!\n)", body)))
def test_a_message_without_faults_is_left_alone(body: bytes) -> None:
    raw = COMPLETE + b"\r\n" + body
    assert b"".join(delivered([raw], TRACE, FIXES)) == TRACE + raw


def test_missing_fields_stand_in_front_behind_the_trace() -> None:
    raw = lines("From: a@b.org", "Subject: x", "", "Hello")
    fixes = replace(FIXES, sender="ann@example.test")
    added = ADDED_ID + ADDED_DATE + b"Sender: ann@example.test\r\n"
    assert b"".join(delivered([raw], TRACE, fixes)) == TRACE + added + raw


def test_the_date_added_is_the_same_moment_in_any_zone() -> None:
    elsewhere = FIXES.date.astimezone(timezone(timedelta(hours=-7)))
    assert mended(b"", replace(FIXES, date=elsewhere)) == ADDED_ID + ADDED_DATE


@pytest.mark.parametrize("name", ["Sender", "SENDER", "sender \t"])
def test_a_sender_field_stays(name: str) -> None:
    raw = COMPLETE + lines(f"{name}: bob@example.test", "", "x")
    assert mended(raw, replace(FIXES, sender="ann@example.test")) == raw


@pytest.mark.parametrize("value", ["", " ", " <>", " no brackets, no at", " <a@b c@d"])
def test_a_message_id_of_no_use_is_replaced(value: str) -> None:
    raw = lines("From: a@b.org", f"Message-ID:{value}", "Date: x", "", "Hello")
    assert summarize(raw).message_id is None
    assert mended(raw) == ADDED_ID + lines("From: a@b.org", "Date: x", "", "Hello")


def test_a_folded_message_id_is_of_use() -> None:
    raw = lines("Date: x", "message-id :", "\t<a@b.org>", "", "Hello")
    assert mended(raw) == raw


@pytest.mark.parametrize(
    "field",
    [
        lines("Bcc: secret@example.test"),
        lines("bCC: secret@example.test"),
        lines("BCC \t : secret@example.test"),
        lines("Bcc:"),
        lines("Bcc: one@example.test,", "\tsecret@example.test,", "  ", " three@example.test"),
        lines("Bcc: one@example.test", "BCC: secret@example.test"),
        lines("Resent-Bcc: secret@example.test"),
        lines("resent-bcc : secret@example.test", end=b"\n"),
        b"Bcc: secret@example.test\r more\n",
        lines("Bcc: secret@example.test", " more", end=b"\r\r\n"),
    ],
)
@pytest.mark.parametrize("end", [b"\r\n", b""])
def test_hidden_recipients_are_not_delivered(field: bytes, end: bytes) -> None:
    for before, after in ((COMPLETE, b""), (b"", COMPLETE), (COMPLETE, lines("X-Bcc: stays", "Bccs: stays"))):
        assert mended(before + field + after + end) == before + after + end


def test_hidden_recipients_behind_two_thousand_lines_are_found() -> None:
    many = COMPLETE + lines(*["X: y"] * 3000)
    assert mended(many + lines("Bcc: secret@example.test", "", "text")) == many + lines("", "text")


def test_a_bcc_line_in_the_body_or_in_an_attached_message_stays() -> None:
    raw = COMPLETE + lines("", "Bcc: me", "", "--b", "Content-Type: message/rfc822", "", "Bcc: you", "", "x")
    assert mended(raw) == raw


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\r\n"])
def test_line_ends_become_crlf(end: bytes) -> None:
    each = ("Message-ID: <a@b.org>", "Date: x", "Subject: a", " b", "", "text", "", ".", "more")
    assert mended(lines(*each, end=end)) == lines(*each)


def test_a_binary_body_keeps_its_bytes() -> None:
    body = b"\r\r\n\n\x00\r"
    raw = lines("Message-ID: <a@b.org>", "Date: x", "", end=b"\n") + body
    fixes = replace(FIXES, binary=True)
    assert mended(raw, fixes) == lines("Message-ID: <a@b.org>", "Date: x", "") + body


@pytest.mark.parametrize(
    "first", [b"From me@b.org Fri Jan  2 2026\r\n", b">From x\r\n", b"\xef\xbb\xbf", b" y\r\n"]
)
def test_what_is_no_field_does_not_stand_between_the_fields(first: bytes) -> None:
    raw = lines("Subject: x", "", "Hello")
    assert mended(first + raw) == ADDED_ID + ADDED_DATE + raw


def test_a_header_that_ends_without_an_empty_line_gets_one() -> None:
    raw = COMPLETE + lines("this is no field", "Bcc: stays", "", "x")
    assert mended(raw) == COMPLETE + lines("", "this is no field", "Bcc: stays", "", "x")
    assert mended(b"Hello\r\n") == ADDED_ID + ADDED_DATE + b"\r\nHello\r\n"


def test_a_message_without_body_or_without_anything() -> None:
    assert mended(b"") == ADDED_ID + ADDED_DATE
    assert mended(b"\r\n") == ADDED_ID + ADDED_DATE + b"\r\n"
    assert mended(b"Subject: x") == ADDED_ID + ADDED_DATE + b"Subject: x"


@pytest.mark.parametrize("start", [b"x" * FIELD_NAME_OCTETS, b"From " + b"x" * FIELD_NAME_OCTETS])
def test_a_line_that_is_too_long_to_be_a_field_is_body(start: bytes) -> None:
    raw = start + b": y\r\n\r\n"
    result = ADDED_ID + ADDED_DATE + b"\r\n" + raw
    assert mended(raw) == result
    assert b"".join(delivered(cut(raw, *range(0, len(raw), 1000)), b"", FIXES)) == result


@pytest.mark.parametrize("header", [COMPLETE + b"Bcc: x@y.org\r\n\r\n", b"", b"From "])
def test_memory_is_that_of_a_few_chunks(header: bytes) -> None:
    chunk = (b"x" * 70 + b"\n") * 7000

    def parts() -> Iterator[bytes]:
        yield header
        for _ in range(20):
            yield chunk

    tracemalloc.start()
    try:
        size = sum(map(len, delivered(parts(), TRACE, FIXES)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 20 * len(chunk)
    assert peak < 6 * len(chunk)


def test_a_body_without_a_line_end_is_not_gathered() -> None:
    form = DeliveredForm(b"", FIXES)
    assert form.feed(b"y" * FIELD_NAME_OCTETS)
    assert form.feed(b"y" * 1000) == b"y" * 1000
