"""Header sections: where they end, whatever the line ends, and what is unfolded."""

from __future__ import annotations

import pytest

from relaymail.message import headers
from relaymail.message.headers import Section
from relaymail.message.limits import ParseLimits
from relaymail.message.summary import summarize
from tests.message.build import budget, lines

WANTED = frozenset((b"subject", b"to", b"from"))


def scan(raw: bytes, limits: ParseLimits | None = None) -> Section:
    return headers.scan(raw, 0, len(raw), WANTED, budget(limits))


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\r\r\n"])
def test_every_line_end_will_do(end: bytes) -> None:
    raw = lines("Subject: one", " two", "\tthree", "X: y", "To: a@x.org", "", "body", end=end)
    section = scan(raw)
    assert section.first(b"subject") == b"one two\tthree"
    assert section.first(b"to") == b"a@x.org"
    assert raw[section.body :] == b"body" + end


def test_line_ends_may_change_from_line_to_line() -> None:
    raw = b"Subject: one\n two\r\nX: y\rTo: a@x.org\r\n\nbody"
    section = scan(raw)
    assert section.first(b"subject") == b"one two"
    assert section.first(b"to") == b"a@x.org"
    assert raw[section.body :] == b"body"


def test_names_match_in_any_case_and_with_blanks_before_the_colon() -> None:
    section = scan(b"SUBJECT: a\r\nfrom : b\r\nTo\t: c\r\n\r\n")
    assert (section.first(b"subject"), section.first(b"from"), section.first(b"to")) == (b"a", b"b", b"c")


def test_repeated_fields_are_all_kept_in_order() -> None:
    section = scan(b"To: a\r\nSubject: s\r\nTo: b\r\n c\r\n\r\n")
    assert section.all(b"to") == [b"a", b"b c"]


def test_the_section_may_be_empty_or_all_there_is() -> None:
    assert scan(b"").body == 0
    assert scan(b"\r\nSubject: no\r\n\r\n").fields == {}
    section = scan(b"Subject: yes\r\n")
    assert (section.first(b"subject"), section.body) == (b"yes", 14)
    section = scan(b"Subject: yes")
    assert (section.first(b"subject"), section.body) == (b"yes", 12)


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r", b"\r\r\n"])
@pytest.mark.parametrize("odd", ["Dear all", "two words: x", ": x", "ümlaut: x"])
def test_a_line_that_is_no_field_begins_the_body(odd: str, end: bytes) -> None:
    raw = lines("Subject: yes", odd, "To: no", "", "body", end=end)
    section = scan(raw)
    assert section.first(b"to") is None
    assert raw[section.body :] == lines(odd, "To: no", "", "body", end=end)
    assert section.end == section.body


def test_a_mailbox_separator_and_a_byte_order_mark_are_passed_over() -> None:
    assert scan(b"From me Mon Jan 1\nSubject: a\n\n").first(b"subject") == b"a"
    assert scan(b">From me Mon Jan 1\nSubject: a\n\n").first(b"subject") == b"a"
    assert scan(b"\xef\xbb\xbfSubject: a\n\n").first(b"subject") == b"a"


def test_a_first_line_that_continues_nothing_is_passed_over() -> None:
    assert scan(b" lost\r\nSubject: a\r\n\r\n").first(b"subject") == b"a"


def test_hops_are_counted() -> None:
    assert scan(b"Received: a\r\n b\r\nreceived: c\r\nX-Received: d\r\n\r\n").hops == 2


def test_the_end_is_the_size_of_the_section() -> None:
    assert scan(b"Subject: a\r\n\r\nbody").end == 10


def test_lines_beyond_the_limit_are_left_out_but_the_body_is_found() -> None:
    raw = lines(*["X: y"] * 20, "Subject: a", "", "body")
    account = budget(ParseLimits(header_lines=20))
    section = headers.scan(raw, 0, len(raw), WANTED, account)
    assert section.first(b"subject") is None
    assert raw[section.body :] == b"body\r\n"
    assert account.status == "limited: header lines over 20 (reader 1)"


def test_a_field_beyond_the_limit_is_cut() -> None:
    raw = lines("Subject: " + "a" * 50, *[" " + "b" * 50] * 10, "To: x", "", "body")
    account = budget(ParseLimits(field_bytes=100))
    section = headers.scan(raw, 0, len(raw), WANTED, account)
    assert section.first(b"subject") == b"a" * 50 + b" " + b"b" * 48
    assert section.first(b"to") == b"x"
    assert account.status == "limited: header field over 100 bytes (reader 1)"


def test_a_section_beyond_the_limit_is_cut_but_the_body_is_found() -> None:
    raw = lines("To: x", *["X: " + "y" * 100] * 100, "Subject: a", "", "body")
    account = budget(ParseLimits(header_bytes=1000))
    section = headers.scan(raw, 0, len(raw), WANTED, account)
    assert section.first(b"to") == b"x"
    assert section.first(b"subject") is None
    assert raw[section.body :] == b"body\r\n"
    assert account.status == "limited: header section over 1000 bytes (reader 1)"


def test_a_field_is_never_cut_inside_a_character() -> None:
    for padding in range(4):
        raw = b"Subject: " + b"x" * padding + "日".encode() * 30_000 + b"\r\n\r\n"
        subject = summarize(raw).subject
        assert set(subject) <= {"x", "日"}
