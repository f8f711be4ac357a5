"""Addresses of the envelope: what is read, what is refused, and that printing and reading are inverse."""

from __future__ import annotations

import time
from typing import Any

import idna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.smtp.address import (
    PATH_OCTETS,
    Address,
    AddressError,
    NonASCIIAddress,
    ascii_domain,
    parse_mailbox,
    parse_path,
)

ATEXT = "abcxyzABCXYZ019!#$%&'*+/=?^_`{|}~-"
LETTERS = "äöüßéñçøåþæ日本語中文한국어абвгд"

atoms = st.text(ATEXT, min_size=1, max_size=10)
local_parts = st.one_of(
    st.lists(atoms, min_size=1, max_size=4).map(".".join),
    st.text(ATEXT + LETTERS, min_size=1, max_size=12),
    # What needs quotes: blanks, specials, dots in odd places, nothing at all
    st.text(ATEXT + ' .@"\\<>()[],;:é', max_size=20),
)
ascii_labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label[2:4] != "--"
)


def is_label(text: str) -> bool:
    try:
        idna.encode(text, uts46=True)
    except idna.IDNAError:
        return False
    return True


unicode_labels = st.text(LETTERS, min_size=1, max_size=10).filter(is_label)
domains = st.lists(st.one_of(ascii_labels, unicode_labels), min_size=1, max_size=4).map(".".join)
literals = st.one_of(
    st.ip_addresses(v=4).map("[{}]".format),
    st.ip_addresses(v=6).map("[IPv6:{}]".format),
)
addresses = st.builds(Address, local_parts, st.one_of(domains, literals)).filter(
    lambda address: (
        len(address.local.encode()) <= 64
        and len(address.domain.encode()) <= 255
        and len(f"<{address}>".encode()) <= PATH_OCTETS
        and is_label(address.domain) | (address.domain[0] == "[")
    )
)


@given(addresses)
def test_what_is_printed_reads_back_the_same(address: Address) -> None:
    assert parse_path(f"<{address}>", utf8=True) == (address, "")
    assert parse_mailbox(str(address)) == address


@given(addresses)
def test_an_internationalized_address_needs_smtputf8(address: Address) -> None:
    if str(address).isascii():
        assert parse_path(f"<{address}>") == (address, "")
    else:
        with pytest.raises(NonASCIIAddress):
            parse_path(f"<{address}>")


@given(addresses)
def test_every_address_has_a_key_to_be_found_under(address: Address) -> None:
    assert address.keys
    assert address.keys[0].endswith("@" + address.host)
    assert address.host.isascii()


@given(st.one_of(st.text(max_size=300), st.text('<>@.:,;[]"\\ aé-_IPv6:1%。xn--\u2028\x85', max_size=60)))
def test_nothing_else_than_a_refusal_is_raised(text: str) -> None:
    for path in (text, f"<{text}>", f"<a@{text}>", f'<"{text}"@b>', f"<a@[IPv6:{text}]>", f"<@{text}:a@b>"):
        for utf8 in (False, True):
            try:
                address, rest = parse_path(path, utf8=utf8)
            except AddressError:
                continue
            assert path.endswith(rest)
            if address is not None:
                assert address.keys
                assert parse_path(f"<{address}>", utf8=utf8) == (address, "")


@pytest.mark.parametrize(
    ("path", "address", "rest"),
    [
        ("<>", None, ""),
        ("<> SIZE=1", None, " SIZE=1"),
        ("<a@b.example>", Address("a", "b.example"), ""),
        ("<a@b.example>X", Address("a", "b.example"), "X"),
        ("<Postmaster>", Address("Postmaster", ""), ""),
        ('<"postmaster">', Address("postmaster", ""), ""),
        ("<@a.example,@b.example:c@d.example>", Address("c", "d.example"), ""),
        ("<a%b@c.example>", Address("a%b", "c.example"), ""),
        ("<x!y@c.example>", Address("x!y", "c.example"), ""),
        ('<"a b"@c.example>', Address("a b", "c.example"), ""),
        ('<"a@b"@c.example>', Address("a@b", "c.example"), ""),
        ('<"a\\"b\\\\"@c.example>', Address('a"b\\', "c.example"), ""),
        ('<""@c.example>', Address("", "c.example"), ""),
        ("<a@[192.0.2.1]>", Address("a", "[192.0.2.1]"), ""),
        ("<a@[IPv6:2001:db8::1]>", Address("a", "[IPv6:2001:db8::1]"), ""),
        ("<a@under_score.example>", Address("a", "under_score.example"), ""),
    ],
)
def test_the_forms_of_a_path(path: str, address: Address | None, rest: str) -> None:
    assert parse_path(path) == (address, rest)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a@b.example",
        "<",
        "<a",
        "<a@b.example",
        "<a@>",
        "<@b.example>",
        "<a@@b.example>",
        "<.a@b.example>",
        "<a.@b.example>",
        "<a..b@c.example>",
        "<a b@c.example>",
        "<a@b..example>",
        "<a@b.example.>",
        "<a@-b.example>",
        "<a@b-.example>",
        "<a@b c.example>",
        "<a@[192.0.2.256]>",
        "<a@[192.0.2.1>",
        "<a@[IPv6:fe80::1%eth0]>",
        '<a@[IPv6:fe80::1%"> x]>',
        "<a@[]>",
        '<"a@b.example>',
        '<"a"b@c.example>',
        "<a@" + "b" * 64 + ".example>",
        "<" + "a" * 65 + "@b.example>",
        "<a@" + "b." * 127 + "bb>",
        "<a>",
        "<@a.example:>",
        "<@a.example,:b@c.example>",
        # Line ends of other alphabets than ASCII's: str.splitlines() and terminals know them
        "<a\x85b@c.example>",
        '<"a\u2028b"@c.example>',
        '<"a\x9bb"@c.example>',
    ],
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(AddressError):
        parse_path(path, utf8=True)


@pytest.mark.parametrize("path", ["<\udce4@b.test>", "<a@\udce4.test>", '<"\udce4"@b.test>', "<\ud800"])
def test_half_a_character_is_refused(path: str) -> None:
    """Arguments of a command line may hold what is no text."""
    with pytest.raises(AddressError, match="surrogate"):
        parse_path(path, utf8=True)


def test_one_domain_has_one_spelling() -> None:
    names = ["Bücher.Example", "bücher.example", "xn--bcher-kva.example", "XN--BCHER-KVA.example"]
    assert {ascii_domain(name) for name in names} == {"xn--bcher-kva.example"}
    assert {Address("A", name).keys for name in names} == {
        ("a@xn--bcher-kva.example", "a@bücher.example"),
    }


def test_one_local_part_has_one_spelling() -> None:
    assert Address("e\u0301", "b.example").keys == Address("É", "b.example").keys


@pytest.mark.parametrize(
    "path",
    [
        "<" + "a." * 1020 + ">",
        "<" + '"' + "\\" * 2040,
        '<"' + "a" * 2040 + '"@b>',
        "<a@" + "b." * 1020 + ">",
        "<a@" + "é" * 1020 + ">",
        "<a@" + "é." * 680 + ">",
        "<a@" + "日" * 680 + ">",
        "<a@" + "\u0e33" * 680 + ">",
        "<a@" + "xn--a." * 330 + "é>",
        "<a@xn--" + "9" * 2000 + ".é>",
        "<" + "@a," * 600 + ":b@c>",
        "<" + "@é," * 500 + ":b@c>",
        "<a@[IPv6:" + "1:" * 1000 + "]>",
        "<a@[" + "1." * 1000,
        "<" + "é" * 1020 + "@b>",
    ],
)
def test_a_line_of_2048_octets_is_read_in_no_time(path: str) -> None:
    def took(text: str) -> float:
        began = time.process_time()
        for _ in range(5):
            try:
                address: Any = parse_path(text, utf8=True)[0]
                assert address.keys
            except AddressError:
                pass
        return (time.process_time() - began) / 5

    assert took(path) < 2.5, "a backtracking pattern takes minutes"
