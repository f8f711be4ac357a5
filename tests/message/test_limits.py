"""What happens at the limits: the rest is left out of the columns, and the status says so."""

from __future__ import annotations

import itertools
import mmap
import tempfile
from typing import Any

import pytest

from relaymail.message import mime, summary
from relaymail.message.summary import ParseLimits, summarize
from tests.message.build import lines


def nested(depth: int) -> bytes:
    """A text within ``depth`` multiparts."""
    head = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth))
    return head.encode() + b"Content-Type: text/plain\r\n\r\ndeep"


def test_the_deepest_multipart_allowed_is_read() -> None:
    read = summarize(nested(100))
    assert (read.text_body, read.parse_status) == ("deep", "complete")


def test_what_is_deeper_is_left_out() -> None:
    read = summarize(nested(101))
    assert (read.text_body, read.parse_status) == (None, "limited: depth over 100 (reader 1)")


def test_parts_beyond_the_limit_are_left_out() -> None:
    part = ["--b", "Content-Type: x/y", "", "z"]
    raw = lines("Content-Type: multipart/mixed; boundary=b", "", *part * 20)
    read = summarize(raw, limits=ParseLimits(parts=11))
    assert len(read.attachments) == 10
    assert read.parse_status == "limited: parts over 11 (reader 1)"
    assert summarize(raw, limits=ParseLimits(parts=21)).parse_status == "complete"


def test_several_limits_are_all_named() -> None:
    raw = lines("To: a@x.org, b@x.org", "Subject: " + "=?utf-8?q?a?= " * 3, "", "text")
    read = summarize(raw, limits=ParseLimits(addresses=1, encoded_words=1, body_characters=1))
    assert read.parse_status == (
        "limited: encoded words over 1, addresses over 1, text over 1 characters (reader 1)"
    )


class Ticking:
    """A clock that goes on a second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_too_many_lines_in_too_many_octets_are_both_named() -> None:
    raw = b"Subject: x\r\n" + b"X: y\r\n" * 100 + b"\r\n"
    read = summarize(raw, limits=ParseLimits(header_lines=10, header_bytes=200))
    assert read.parse_status == "limited: header section over 200 bytes, header lines over 10 (reader 1)"


def test_when_the_time_is_used_up_what_was_found_is_kept() -> None:
    part = ["--b", "Content-Type: x/y", "", "z"]
    raw = lines("Subject: kept", "Content-Type: multipart/mixed; boundary=b", "", *part * 900)
    read = summarize(raw, limits=ParseLimits(seconds=5.5), clock=Ticking())
    assert read.subject == "kept"
    assert 100 < len(read.attachments) < 800
    assert read.parse_status == "limited: time over 5.5 s (reader 1)"


def test_time_is_watched_within_a_long_body() -> None:
    raw = lines("Content-Type: text/plain", "Content-Transfer-Encoding: base64", "") + b"QUJD" * 1_000_000
    read = summarize(raw, limits=ParseLimits(seconds=3.5), clock=Ticking())
    assert (read.text_body, read.parse_status) == (None, "limited: time over 3.5 s (reader 1)")


@pytest.mark.parametrize("piece", [b"(", b"(\\", b"(())", b'\\"', b"\\", b"[", b")", b'"a '])
def test_time_is_watched_within_an_address_field(piece: bytes) -> None:
    ticks = itertools.count()
    raw = b"From: " + piece * (60_000 // len(piece)) + b"\r\n\r\n"
    read = summarize(raw, limits=ParseLimits(seconds=0.01), clock=lambda: next(ticks) / 1000)
    assert read.parse_status == "limited: time over 0.01 s (reader 1)"


def test_a_mistake_of_ours_loses_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(mime, "leaves", mistake)
    read = summarize(b"Subject: kept\r\nFrom: a@x.org\r\n\r\nbody")
    assert (read.subject, read.from_address, read.text_body) == ("kept", "a@x.org", None)
    assert read.parse_status == "failed: ZeroDivisionError (reader 1)"


def test_bytes_a_map_and_a_view_are_read_alike() -> None:
    raw = lines(
        "Subject: alike",
        "Content-Type: multipart/mixed; boundary=b",
        "",
        "--b",
        "",
        "text",
        "--b",
        "Content-Type: x/y",
        "Content-Transfer-Encoding: base64",
        "",
        "QUJD",
        "--b--",
    )
    expected = summarize(raw)
    assert expected.text_body == "text"
    assert summarize(memoryview(raw)) == expected
    assert summarize(memoryview(b"xx" + raw)[2:]) == expected
    with tempfile.TemporaryFile() as spool:
        spool.write(raw)
        spool.flush()
        with mmap.mmap(spool.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert summarize(mapped) == expected
            view = memoryview(mapped)
            assert summarize(view) == expected
            for source in (raw, memoryview(raw), mapped, view):
                assert b"".join(expected.attachments[0].decode(source)) == b"ABC"
            view.release()


def test_the_module_names_what_others_need() -> None:
    assert set(summary.__all__) == {"Attachment", "HeaderRecipient", "ParseLimits", "Summary", "summarize"}


def test_delimiters_that_are_none_are_not_looked_at_for_ever() -> None:
    raw = lines("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "text", "--b", *["--bx"] * 11)
    read = summarize(raw, limits=ParseLimits(near_delimiters=10))
    assert (read.text_body, read.parse_status) == ("text", "limited: near delimiters over 10 (reader 1)")
    assert summarize(raw, limits=ParseLimits(near_delimiters=11)).parse_status == "complete"


def test_time_is_watched_between_long_searches() -> None:
    raw = nested(50) + b"\r\n" * 1024 * 1024
    read = summarize(raw, limits=ParseLimits(seconds=8.5), clock=Ticking())
    assert read.parse_status == "limited: time over 8.5 s (reader 1)"
