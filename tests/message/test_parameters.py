"""Content-Type and Content-Disposition, and the names of files in them."""

from __future__ import annotations

import pytest

from relaymail.message import parameters
from relaymail.message.encoded_words import WordDecoder
from relaymail.message.limits import ParseLimits
from tests.message.build import budget


@pytest.mark.parametrize(
    ("value", "media_type"),
    [
        ("text/plain", "text/plain"),
        ("TEXT/Plain; charset=x", "text/plain"),
        (" text / plain ;charset=x", "text/plain"),
        ("application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text"),
        ("application/x-foo+bar", "application/x-foo+bar"),
        ('application/pdf name="a.pdf"', "application/pdf"),
        ("text/plain (comment)", "text/plain"),
        ("text", None),
        ("", None),
        ("/plain", None),
        ("text/", None),
        ("te(x)t/plain", None),
        ("plain text", None),
    ],
)
def test_the_media_type(value: str, media_type: str | None) -> None:
    assert parameters.content_type(value.encode(), budget())[0] == media_type


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        ("text/plain; charset=utf-8", "charset", "utf-8"),
        ('text/plain; charset="utf-8"', "charset", "utf-8"),
        ("text/plain; charset = utf-8 ; x=y", "charset", "utf-8"),
        ("text/plain; charset=us-ascii (Plain text)", "charset", "us-ascii"),
        ("text/plain;; ;charset=a;charset=b", "charset", "a"),
        ("text/plain; junk; charset=a", "charset", "a"),
        ("text/plain; =x; charset=a", "charset", "a"),
        ('text/plain; charset="a', "charset", "a"),
        ('multipart/mixed; boundary="a b;c\\"d"', "boundary", 'a b;c"d'),
        ("multipart/mixed; BOUNDARY=a=b=c", "boundary", "a=b=c"),
        ('application/pdf name="a b.pdf"', "name", "a b.pdf"),
        ('x/y; name="a" junk; charset=b', "charset", "b"),
    ],
)
def test_a_parameter(value: str, name: str, expected: str) -> None:
    given = parameters.content_type(value.encode(), budget())[1]
    assert given.text(name) == expected
    assert given.octets(name) == expected.encode()
    assert name in given


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('attachment; filename="report.pdf"', "report.pdf"),
        ("attachment; filename=report.pdf", "report.pdf"),
        ("attachment; filename=my report (1).pdf; size=3", "my report (1).pdf"),
        ('attachment; filename="a\\"b.pdf"', 'a"b.pdf'),
        ('attachment; filename="a;b.pdf"', "a;b.pdf"),
        ("attachment; filename*=utf-8''%C3%9Cbersicht.pdf", "Übersicht.pdf"),
        ("attachment; filename*=UTF-8'de'%c3%9cbersicht.pdf", "Übersicht.pdf"),
        ("attachment; filename*=iso-8859-1''%DCbersicht.pdf", "Übersicht.pdf"),
        ("attachment; filename*=koi8-r''%F0%D2%C9%D7%C5%D4.txt", "Привет.txt"),
        ("attachment; filename=\"fallback.pdf\"; filename*=utf-8''%C3%9C.pdf", "Ü.pdf"),
        ('attachment; filename*0="part one "; filename*1="part two.pdf"', "part one part two.pdf"),
        ("attachment; filename*1=b; filename*0=a; filename*2=.pdf", "ab.pdf"),
        ("attachment; filename*0*=utf-8''%C3; filename*1*=%9C; filename*2=%41.pdf", "Ü%41.pdf"),
        ("attachment; filename*0=a; filename*2=c", "a"),
        ("attachment; filename*0*=''%C3%9C; filename*1*=.txt", "Ü.txt"),
        ("attachment; filename*=%C3%9C.txt", "Ü.txt"),
        ("attachment; filename*=unknown''%C3%9C.txt", "Ü.txt"),
        ("attachment; filename*=utf-8''50%.txt", "50%.txt"),
        ('attachment; filename="=?utf-8?B?w5xiZXJzaWNodC5wZGY=?="', "Übersicht.pdf"),
        ("attachment; filename==?iso-8859-1?Q?=DC.pdf?=", "Ü.pdf"),
        ('attachment; filename="=?utf-8?Q?=C3=9C?= =?utf-8?Q?.pdf?="', "Ü.pdf"),
        ('attachment; filename="Übersicht.pdf"', "Übersicht.pdf"),
        ('attachment; filename=""', ""),
    ],
)
def test_a_file_name(value: str, expected: str) -> None:
    kind, given = parameters.disposition(value.encode(), budget())
    assert kind == "attachment"
    assert given.text("filename", WordDecoder(budget())) == expected


def test_a_file_name_in_latin_1() -> None:
    _, given = parameters.disposition(b'attachment; filename="\xdcbersicht.pdf"', budget())
    assert given.text("filename") == "Übersicht.pdf"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("inline", "inline"),
        ("Attachment", "attachment"),
        ("attachment;", "attachment"),
        ('filename="a"', None),
        ("", None),
    ],
)
def test_the_disposition(value: str, kind: str | None) -> None:
    assert parameters.disposition(value.encode(), budget())[0] == kind


@pytest.mark.parametrize(("given", "expected"), [(b"\x1c", "\x1c"), (b"\x1f\xa0 x", "\x1f\xa0"), (b'""', "")])
def test_only_a_blank_or_a_tab_ends_a_value(given: bytes, expected: str) -> None:
    _, read = parameters.content_type(b"multipart/mixed; boundary=" + given, budget())
    assert read.octets("boundary") == expected.encode("latin-1")


def test_parameters_beyond_the_limit_are_left_out_and_noted() -> None:
    account = budget(ParseLimits(parameters=3))
    _, given = parameters.content_type(b"a/b; a=1; b=2; c=3; d=4; boundary=none" + b" " * 80, account)
    assert given.text("c") == "3"
    assert "d" not in given
    assert account.status == "limited: parameters over 3 (reader 1)"
