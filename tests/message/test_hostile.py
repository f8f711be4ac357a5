"""Messages made to cost time: each must be read in time linear in its size.

A frozen clock takes the time limit away, and by counting how often it is looked at counts the steps of the
reader. Steps and processor time of a message eight times as large may be at most eighteen times as many:
quadratic work is sixty-four times.
"""

from __future__ import annotations

import inspect
import random
import time
import tracemalloc
from collections.abc import Callable

import pytest

from relaymail.message.authors import authors
from relaymail.message.summary import ParseLimits, Summary, summarize

Maker = Callable[[int], bytes]

KIB = 1024
MIB = 1024 * KIB
CEILING = 3.0
"""Seconds of processor time for the larger message, on any machine."""

MULTI = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"


def header(name: str, unit: bytes, size: int = 64 * KIB, start: bytes = b"", end: bytes = b"") -> Maker:
    """A field of ``unit`` repeated; the larger message has ``size`` octets of it."""

    def make(scale: int) -> bytes:
        value = start + unit * (size * scale // 8 // len(unit)) + end
        return name.encode() + b": " + value + b"\r\n\r\nbody"

    return make


def body(unit: bytes, size: int = MIB, head: bytes = MULTI, start: bytes = b"") -> Maker:
    """A body of ``unit`` repeated; the larger message has ``size`` octets of it."""
    return lambda scale: head + start + unit * (size * scale // 8 // len(unit))


def nesting(kind: bytes = b"mixed", levels: int = 20_000, same: bool = False) -> Maker:
    def make(scale: int) -> bytes:
        pieces = []
        for level in range(levels * scale // 8):
            boundary = b"b" if same else b"b%d" % level
            pieces.append(
                b"Content-Type: multipart/" + kind + b"; boundary=" + boundary + b"\n\n--" + boundary + b"\n"
            )
        return b"".join(pieces)

    return make


def nested_then(unit: bytes, size: int = MIB, levels: int = 100, prefix: bool = False) -> Maker:
    """The most levels allowed, and much of ``unit`` within; with ``prefix`` each boundary begins the next."""

    def make(scale: int) -> bytes:
        names = [b"b" * (level + 1) if prefix else b"b%d" % level for level in range(levels)]
        heads = [
            b"Content-Type: multipart/mixed; boundary=" + name + b"\n\n--" + name + b"\n" for name in names
        ]
        return b"".join(heads) + b"\n" + unit * (size * scale // 8 // len(unit))

    return make


def parts(part: bytes, count: int) -> Maker:
    return lambda scale: MULTI + (b"--b\r\n" + part + b"\r\n") * (count * scale // 8)


def noise(alphabet: bytes, size: int = MIB, head: bytes = b"") -> Maker:
    def make(scale: int) -> bytes:
        return head + bytes(random.Random(7).choices(alphabet, k=size * scale // 8))

    return make


def rfc2231(count: int, form: bytes) -> Maker:
    def make(scale: int) -> bytes:
        pieces = b"".join(b";\r\n " + form % number for number in range(count * scale // 8))
        return b"Content-Disposition: attachment" + pieces + b"\r\n\r\nbody"

    return make


def encoded(encoding: bytes, unit: bytes, size: int = 4 * MIB, kind: bytes = b"application/x") -> Maker:
    head = b"Content-Type: " + kind + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
    return body(unit, size, head)


HOSTILE: dict[str, Maker] = {
    # the header section
    "a subject of 570 KB": header("Subject", b"subject ", 570 * KIB),
    "a subject of 570 KB of encoded words": header("Subject", b"=?utf-8?q?=C3=BC?= ", 570 * KIB),
    "a folded header of 10 MB": header("X-Folded", b"folded\r\n ", 10 * MIB),
    "a folded subject of 10 MB": header("Subject", b"folded\r\n ", 10 * MIB),
    "a folded To of 10 MB": header("To", b"a@b.org,\r\n ", 10 * MIB),
    "a header line of 4 MB": header("X-Long", b"x", 4 * MIB),
    "a million header lines": body(b"X: y\r\n", 6 * MIB, b""),
    "a million empty lines": body(b"\r\n", 2 * MIB, b""),
    "a million LFs in a header": body(b"\n ", 2 * MIB, b"Subject: x"),
    "carriage returns only": body(b"\r", 2 * MIB, b"Subject: x"),
    "carriage returns before every LF": body(b"\r\r\r\n ", 2 * MIB, b"Subject: x"),
    "no line end at all": body(b"x", 4 * MIB, b"Subject: "),
    "colons only": body(b":", MIB, b""),
    "lines of white space": body(b" \t \r\n", MIB, b"Subject: x\r\n"),
    "a name of 1 MB": body(b"N", MIB, b""),
    "a name with 1 MB of blanks behind it": body(b" ", MIB, b"Subject"),
    "a hundred thousand subjects": body(b"Subject: x\r\n", MIB, b""),
    "ten thousand To fields": body(b"To: a@b.org, c@d.org\r\n", MIB, b""),
    "Received without end": body(b"Received: x\r\n", MIB, b""),
    "NULs in the header": header("Subject", b"\x00", MIB),
    # encoded words
    "encoded words never closed": header("Subject", b"=?utf-8?q?"),
    "encoded words without text": header("Subject", b"=??="),
    "question marks": header("Subject", b"=?"),
    "an encoded word of 64 KB": header("Subject", b"=C3=BC", start=b"=?utf-8?q?", end=b"?="),
    "a base64 word of padding": header("Subject", b"=", start=b"=?utf-8?b?", end=b"?="),
    "base64 words, padded often": header("Subject", b"Q=", start=b"=?utf-8?b?", end=b"?="),
    "a charset of 64 KB": header("Subject", b"x", start=b"=?", end=b"?q?a?="),
    "words of many charsets": header("Subject", b"=?utf-8?q?a?= =?koi8-r?q?b?= =?hz?q?~{?="),
    # addresses
    "50,000 addresses": header("To", b"a@b.org, ", 450 * KIB),
    "50,000 addresses with names": header("To", b'"N, N" <a@b.org>, ', 900 * KIB),
    "the slow way to 50,000 addresses": header("To", b"(c) a@b.org, ", 650 * KIB, start=b"=?x?q?y?= "),
    "nested comments": header("To", b"(", end=b"a@b.org"),
    "nested comments, closed": lambda scale: (
        b"To: " + b"(" * 3750 * scale + b")" * 3750 * scale + b" a@b.org\r\n\r\n"
    ),
    "300 comments in each other": lambda scale: (
        b"To: " + (b"(" * 300 + b")" * 300) * 12 * scale + b" a@b\r\n\r\n"
    ),
    "comments that escape": header("To", b"(\\", end=b")"),
    "quotes never closed": header("To", b'"a '),
    "escaped quotes never closed": header("To", b'\\"', start=b'"'),
    "one quote and blanks": header("To", b" ", start=b'"'),
    "blanks before a bracket": header("From", b" ", start=b"a", end=b"b <"),
    "backslashes": header("From", b"\\"),
    "open brackets": header("From", b"<"),
    "closed brackets": header("From", b">"),
    "at signs": header("From", b"@"),
    "dots": header("From", b".", start=b"a", end=b"@b"),
    "dots in a domain": header("From", b"a.", start=b"x@", end=b"@"),
    "colons behind an at sign": header("From", b":", start=b"a " * 8000 + b"@"),
    "groups in groups": header("To", b"g:"),
    "semicolons": header("To", b";"),
    "source routes": header("To", b"<@a,", end=b":b@c>"),
    "square brackets": header("To", b"[", start=b"a@"),
    "obsolete dots": header("To", b"a . ", end=b"@ b"),
    "words without an address": header("To", b"a "),
    "combining marks": header("To", "a\u0301\u0323".encode(), end=b"@b.org"),
    # ids
    "references without end": header("References", b"<a@b> ", 570 * KIB),
    "references never opened": header("References", b"<<<<"),
    "one reference of 64 KB": header("References", b"a", start=b"<", end=b">"),
    "a message id of blanks": header("Message-ID", b" ", start=b"<", end=b">"),
    "a message id of dots": header("Message-ID", b"a.", start=b"<x@"),
    "prose in In-Reply-To": header("In-Reply-To", b"word "),
    # parameters
    "20,000 pieces of a name": rfc2231(20_000, b"filename*%d=x"),
    "20,000 encoded pieces": rfc2231(20_000, b"filename*%d*=%%C3%%BC"),
    "20,000 parameters": rfc2231(20_000, b"p%d=x"),
    "parameters never closed": header("Content-Type", b';a="', start=b"text/plain"),
    "quotes and backslashes in parameters": header("Content-Type", b';a="\\"', start=b"text/plain"),
    "a long token without a value": header("Content-Type", b"a", start=b"text/plain;"),
    "semicolons in a type": header("Content-Type", b"; ", start=b"text/plain"),
    "equals signs in a type": header("Content-Type", b"=", start=b"text/plain;a"),
    "slashes in a type": header("Content-Type", b"a/"),
    "blanks in a type": header("Content-Type", b" ", start=b"text", end=b"/plain"),
    "apostrophes in a name": header("Content-Disposition", b"'", start=b"attachment;filename*="),
    "percent signs in a name": header("Content-Disposition", b"%4", start=b"attachment;filename*=''"),
    "a path of 64 KB": header("Content-Disposition", b"a/", start=b"attachment;filename="),
    "an encoding of 64 KB": header("Content-Transfer-Encoding", b"x ("),
    "a boundary of 64 KB": lambda scale: (
        b"Content-Type: multipart/mixed; boundary="
        + b"b" * 7500 * scale
        + b"\r\n\r\n--"
        + b"b" * 7500 * scale
    ),
    # multiparts
    "20,000 levels": nesting(),
    "20,000 levels of one boundary": nesting(same=True),
    "20,000 digests": nesting(b"digest"),
    "100 levels and half a delimiter often": nested_then(b"--b\n"),
    "100 levels, each boundary the beginning of the next": nested_then(
        b"--" + b"b" * 101 + b"\n", prefix=True
    ),
    "100 levels, each delimiter almost right": nested_then(b"--" + b"b" * 100 + b"x\n", prefix=True),
    "100 levels and empty lines": nested_then(b"\r\n", MIB),
    "100,000 empty parts": parts(b"", 100_000),
    "100,000 small parts": parts(b"Content-Type: x/y\r\n\r\nz", 100_000),
    "parts of headers only": parts(b"Content-Type: text/plain\r\n" * 20, 5000),
    "delimiters that are none": body(b"--bx\r\n"),
    "delimiters in the line": body(b" --b"),
    "delimiters with blanks behind": body(b" ", 4 * MIB, start=b"--b"),
    "delimiters with many blanks, often": body(b"--b" + b" " * 1000 + b"x\r\n"),
    "dashes": body(b"-", 4 * MIB),
    "a boundary of dashes": body(b"-", MIB, b"Content-Type: multipart/mixed; boundary=------\r\n\r\n"),
    "a boundary of 1,000 dashes": body(
        b"-", 4 * MIB, b"Content-Type: multipart/mixed; boundary=" + b"-" * 998 + b"x\r\n\r\n"
    ),
    "a boundary almost found": body(
        b"a" * 499 + b"c", 4 * MIB, b"Content-Type: multipart/mixed; boundary=" + b"a" * 500 + b"\r\n\r\n--"
    ),
    "closing delimiters": body(b"--b--\r\n", start=b"--b\r\n"),
    "parts without an empty line": body(b"--b\r\nnot a header\r\n"),
    "a part of carriage returns": body(b"\r", 2 * MIB, start=b"--b\r\n"),
    # encodings
    "base64 of nothing but garbage": encoded(b"base64", b"*-_."),
    "base64 of padding": encoded(b"base64", b"="),
    "base64 padded after every letter": encoded(b"base64", b"Q="),
    "base64 in lines of one letter": encoded(b"base64", b"Q\r\n"),
    "base64 with clear text behind padding": encoded(b"base64", b"QQ==-"),
    "escapes only": encoded(b"quoted-printable", b"=41"),
    "soft breaks only": encoded(b"quoted-printable", b"=\r\n"),
    "soft breaks of bare CR": encoded(b"quoted-printable", b"=\r"),
    "soft breaks and blanks": encoded(b"quoted-printable", b"= "),
    "one soft break and blanks": encoded(b"quoted-printable", b" ", kind=b"text/plain"),
    "broken escapes": encoded(b"quoted-printable", b"=="),
    "a text of 16 MB": body(b"text\r\n", 16 * MIB, b"\r\n"),
    "a text of NULs": body(b"\x00", 4 * MIB, b"\r\n"),
    "a text of latin-1": body(b"\xfc", 4 * MIB, b"\r\n"),
    "a text of surrogates in UTF-7": encoded(b"7bit", b"+2AA-", kind=b"text/plain; charset=utf-7"),
    "a text of shifts in ISO-2022": encoded(
        b"7bit", b"\x1b$B\x1b(B", kind=b"text/plain; charset=iso-2022-jp"
    ),
    "a text of broken ISO-2022": encoded(b"7bit", b"\x1b$", kind=b"text/plain; charset=iso-2022-kr"),
    "a text of tildes in HZ": encoded(b"7bit", b"~{~", kind=b"text/plain; charset=hz-gb-2312"),
    "a text of broken UTF-16": encoded(b"7bit", b"\xd8\x00", kind=b"text/plain; charset=utf-16"),
    "blank texts": parts(b"Content-Type: text/plain\r\n\r\n" + b" " * 1000, 2000),
    "messages in messages": body(b"Content-Type: message/rfc822\r\n\r\n", MIB, b""),
    # noise
    "noise of specials": noise(b'()<>@,;:\\"[]. \r\n\t=?', 256 * KIB, b"To: x\r\n "),
    "noise of line ends and dashes": noise(b"\r\n-b ", MIB, MULTI),
    "noise of header characters": noise(b"To:;=?\"'*%0b \r\n", MIB),
    "noise of bytes": noise(bytes(range(256)), MIB),
}


class FrozenClock:
    """A clock that stands still, and counts."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return 0.0


def cost(raw: bytes) -> tuple[float, int, Summary]:
    """Seconds of processor time, looks at the clock, and what came of it."""
    clock = FrozenClock()
    started = time.process_time()
    summary = summarize(raw, clock=clock)
    return time.process_time() - started, clock.looks, summary


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear(name: str) -> None:
    make = HOSTILE[name]
    small, large = make(1), make(8)
    assert len(large) <= 9 * len(small)
    small_seconds, small_looks, _ = cost(small)
    large_seconds, large_looks, summary = cost(large)
    assert not summary.parse_status.startswith("failed")
    assert large_looks <= 18 * small_looks + 20
    # What others do on the machine, and a collection of garbage, can cost as much again: then measured anew
    for _ in range(4):
        # A little on top for what is too short to be measured
        if large_seconds < CEILING and large_seconds <= 18 * small_seconds + 0.15:
            break
        small_seconds = max(small_seconds, cost(small)[0])
        large_seconds = min(large_seconds, cost(large)[0])
    assert large_seconds < CEILING
    assert large_seconds <= 18 * small_seconds + 0.15


@pytest.mark.parametrize(
    "name", ["a folded header of 10 MB", "a text of 16 MB", "20,000 levels", "50,000 addresses"]
)
def test_memory_is_bounded_by_the_text_columns(name: str) -> None:
    raw = HOSTILE[name](8)
    tracemalloc.start()
    try:
        summary = summarize(raw)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    text = len(summary.text_body or "")
    assert peak < 4 * MIB + 3 * text
    assert held < 2 * MIB + 2 * text


def test_a_large_attachment_costs_no_memory() -> None:
    raw = b"Content-Type: x/y\r\nContent-Transfer-Encoding: base64\r\n\r\n" + b"QUJD" * 6 * MIB
    tracemalloc.start()
    try:
        (attachment,) = summarize(raw).attachments
        assert sum(map(len, attachment.decode(raw))) == 18 * MIB
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize("read", [summarize, authors])
def test_what_is_read_does_not_depend_on_what_else_the_machine_does(read: Callable[..., object]) -> None:
    assert inspect.signature(read).parameters["clock"].default is time.thread_time


def test_the_time_limit_holds_where_the_work_is_long() -> None:
    raw = HOSTILE["20,000 levels"](8) + HOSTILE["100,000 small parts"](8)
    started = time.process_time()
    summary = summarize(raw, limits=ParseLimits(seconds=0.01, parts=10**6, depth=10**6))
    assert time.process_time() - started < 5.0
    assert summary.parse_status == "limited: time over 0.01 s (reader 1)"
