"""DKIM signatures (RFC 6376, 8463), held against dkimpy, which shares no code with ours."""

from __future__ import annotations

import re
from functools import cache

import dkim  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relaymail.message.dkim import HEADER_OCTETS, SignedForm, Unsignable
from relaymail.message.dkim_keys import Algorithm, SigningKey, new_key, public_text, read_key, record_text

AT = 1_780_000_000
HEADER = b"From: Anna <anna@example.test>\r\nTo: b@example.org\r\nSubject: x\r\n"


@cache
def key(algorithm: Algorithm = "rsa", domain: str = "example.test") -> SigningKey:
    return read_key(new_key(algorithm), domain, f"s-{algorithm}")


BOTH = (key("rsa"), key("ed25519"))


def published(name: bytes, timeout: int = 5) -> bytes:
    """What the DNS says of our keys."""
    for each in BOTH:
        if name == f"{each.selector}._domainkey.{each.domain}.".encode():
            return record_text(each.algorithm, public_text(each)).encode()
    return b""


def read(message: bytes, cut: int = 0) -> SignedForm:
    """The form, fed in pieces of ``cut`` octets."""
    form = SignedForm()
    step = cut or len(message) or 1
    for start in range(0, len(message), step):
        form.feed(message[start : start + step])
    form.finish()
    return form


def signed(message: bytes, *keys: SigningKey, cut: int = 0) -> bytes:
    """The message as the next host gets it: behind its signatures, ended as DATA ends it."""
    whole = read(message, cut).sign(keys or BOTH, AT) + message
    return whole if whole.endswith(b"\r\n") else whole + b"\r\n"


def verifies(message: bytes) -> list[bool]:
    """For each signature, whether dkimpy finds it good."""
    count = len(re.findall(rb"(?m)^DKIM-Signature:", message.partition(b"\r\n\r\n")[0]))
    return [_verifies(message, n) for n in range(count)]


def _verifies(message: bytes, number: int) -> bool:
    try:
        return bool(dkim.DKIM(message, minkey=1024).verify(idx=number, dnsfunc=published))
    except dkim.ValidationError:
        return False


def tags(field: bytes) -> dict[str, str]:
    text = re.sub(r"\s+", "", field.decode().partition(":")[2])
    return dict(pair.split("=", 1) for pair in text.split(";") if pair)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"\r\n\r\n\r\n",
        b" \r\n\t\r\n",
        b"text",
        b"text\r\n",
        b"text\r\n\r\n\r\n",
        b"text\r\n \t \r\n\r\n",
        b"a  b\t\tc \t d\r\n",
        b"end  \t\r\nof\t\r\nlines \r\n",
        b"\r\n\r\nlines in front\r\n",
        b" \tin front\r\n  too\r\n",
        b"gr\xc3\xbc\xc3\x9fe und \xff\xfe\r\n",
        b".\r\n..\r\n",
        b"\0\x0b\x0c\x1a \0\r\n",
        b"x" * 70_000 + b"\r\n" + b"\r\n" * 40_000 + b"y" + b" " * 70_000 + b"\r\n" * 40_000,
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 7, 4096])
def test_any_body_verifies_however_it_is_cut(body: bytes, cut: int) -> None:
    if cut in (1, 7) and len(body) > 1000:
        body = body[69_990:70_100] + body[-80_010:-79_990]
    assert verifies(signed(HEADER + b"\r\n" + body, cut=cut)) == [True, True]


# A text of pieces in which line ends and white space meet in every way
PIECES = st.lists(
    st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"bc", b".", b"\xe4", b"=", b"\r\n\r\n"]), max_size=40
)
FOLDED = st.lists(
    st.sampled_from([b"x", b" ", b"\t", b"\r\n ", b"\r\n\t", b"\xc3\xa4", b":", b";", b"b="]), max_size=20
)
NAMES = st.sampled_from(
    [b"Subject", b"TO", b"cc", b"Date", b"Message-ID", b"MIME-Version", b"Content-Type", b"Sender",
     b"X-Other", b"Resent-From", b"List-Id", b"Received", b"subject", b"References"]
)  # fmt: skip


@given(st.lists(st.tuples(NAMES, FOLDED), max_size=8), PIECES, st.integers(1, 50))
@example([(b"Subject", [b"\r\n ", b"\r\n\t", b" "])], [b" "], 1)
def test_any_message_verifies(fields: list[tuple[bytes, list[bytes]]], body: list[bytes], cut: int) -> None:
    lines = [name + b":" + b"".join(value) for name, value in fields]
    header = b"\r\n".join([b"From: anna@example.test", *lines, b""])
    assert verifies(signed(header + b"\r\n" + b"".join(body), cut=cut)) == [True, True]


def test_a_message_without_a_body_verifies() -> None:
    assert verifies(signed(HEADER)) == [True, True]


@pytest.mark.parametrize(
    "change", ["body", "from", "to", "second From", "second Subject", "Cc where none was"]
)
def test_what_is_changed_on_the_way_does_not_verify(change: str) -> None:
    message = signed(HEADER + b"\r\nhello\r\n")
    match change:
        case "body":
            message = message.replace(b"hello", b"hellO")
        case "from":
            message = message.replace(b"From: Anna", b"From: Anne")
        case "to":
            message = message.replace(b"b@example.org", b"c@example.org")
        case "second From":
            message = b"From: eve@example.test\r\n" + message
        case "second Subject":
            message = message.replace(b"Subject: x", b"Subject: x\r\nSubject: y")
        case "Cc where none was":
            message = message.replace(b"Subject: x", b"Subject: x\r\nCc: eve@example.org")
    assert verifies(message) == [False, False]


def test_what_hosts_add_on_the_way_does_no_harm() -> None:
    message = b"Received: from a by b; now\r\nX-Spam: no\r\n" + signed(HEADER + b"\r\nhello\r\n")
    message = message.replace(b"To: b@", b"to:   b@").replace(b"hello", b"hello  ")
    assert verifies(message) == [True, True]


def test_the_field_says_what_it_should() -> None:
    rsa, ed25519 = re.findall(rb"DKIM-Signature:(?:.*\r\n[ \t])*.*\r\n", read(HEADER).sign(BOTH, AT))
    found = tags(rsa)
    assert {name: found[name] for name in ("v", "a", "c", "d", "s", "t")} == {
        "v": "1", "a": "rsa-sha256", "c": "relaxed/relaxed", "d": "example.test", "s": "s-rsa", "t": str(AT),
    }  # fmt: skip
    assert "l" not in found
    assert "x" not in found
    names = found["h"].split(":")
    assert [names.count(name) for name in ("from", "to", "subject", "date", "cc", "sender")] == [
        2,
        2,
        2,
        1,
        1,
        0,
    ]
    assert tags(ed25519)["a"] == "ed25519-sha256"
    assert tags(ed25519)["bh"] == found["bh"]


def test_lines_are_short_and_end_in_crlf() -> None:
    many = b"".join(b"Resent-To: %d@example.org\r\n" % n for n in range(100))
    fields = read(HEADER + many).sign(BOTH, AT)
    assert fields.count(b"\n") == fields.count(b"\r\n") == fields.count(b"\r")
    assert fields.endswith(b"\r\n")
    assert max(len(line) for line in fields.split(b"\r\n")) <= 78


def test_the_domain_is_that_of_the_author() -> None:
    for field, domain in [
        (b"From: a@Example.TEST", "example.test"),
        (b'From: "x@evil.example" <a@good.example>', "good.example"),
        (b"from :\r\n Anna\r\n <a@sub.example.test>", "sub.example.test"),
        ("From: ä@bücher.example".encode(), "xn--bcher-kva.example"),
        (b"From: a@one.example, b@two.example", "one.example"),
        (b"From: (comment) \r\n\t<a@b.example>", "b.example"),
        (b"From: =?utf-8?q?a?= <a@b.example>\r\nFrom: c@d.example", "b.example"),
        (b"From: root", None),
        (b"From: <a@[192.0.2.1]>", None),
        (b"To: a@b.example", None),
    ]:
        form = read(field + b"\r\nSubject: x\r\n\r\nbody")
        assert form.domain == domain, field


def test_the_domain_is_known_as_soon_as_the_header_is() -> None:
    form = SignedForm()
    known = []
    for piece in (HEADER, b"\r", b"\n"):
        form.feed(piece)
        known.append(form.header_read)
    assert known == [False, False, True]
    assert form.domain == "example.test"


def test_without_author_or_key_nothing_is_signed() -> None:
    assert read(b"To: b@example.org\r\n\r\nbody").sign(BOTH, AT) == b""
    assert read(HEADER).sign((), AT) == b""
    assert read(b"").sign(BOTH, AT) == b""
    assert read(b"\r\nbody").sign(BOTH, AT) == b""


def test_two_authors_fields_are_both_signed() -> None:
    message = signed(b"From: a@example.test\r\nSubject: x\r\nFrom: b@example.test\r\n\r\nbody\r\n")
    assert (
        tags(message.partition(b"From")[0].partition(b"DKIM-Signature: v=1; a=ed")[0])["h"]
        .split(":")
        .count("from")
        == 3
    )


def test_an_endless_header_is_not_signed_and_not_held() -> None:
    with pytest.raises(Unsignable, match="longer than"):
        read(b"x" * (HEADER_OCTETS + 1000), cut=1000)
    with pytest.raises(Unsignable, match="fields"):
        read(HEADER + b"To: x\r\n" * 1000 + b"\r\n")


def test_a_key_does_not_show_itself() -> None:
    for each in BOTH:
        assert repr(each) == f"<{each.algorithm} key {each.selector} of example.test>"
