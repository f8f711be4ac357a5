"""Address lists, as the RFC allows them and as programs write them."""

from __future__ import annotations

import pytest

from relaymail.message import addresses
from relaymail.message.limits import ParseLimits
from tests.message.build import budget

WELL_FORMED = [
    ("a@example.org", [("a@example.org", None)]),
    ("<a@example.org>", [("a@example.org", None)]),
    ("Alice Example <a@example.org>", [("a@example.org", "Alice Example")]),
    ('"Example, Alice" <a@example.org>', [("a@example.org", "Example, Alice")]),
    ('"Alice \\"Al\\" Example" <a@example.org>', [("a@example.org", 'Alice "Al" Example')]),
    ("John Q. Public <j@example.org>", [("j@example.org", "John Q. Public")]),
    ("a@example.org, B <b@example.org>", [("a@example.org", None), ("b@example.org", "B")]),
    ('A <a@x.org>, "B, C" <b@x.org>,c@x.org', [("a@x.org", "A"), ("b@x.org", "B, C"), ("c@x.org", None)]),
    ("a@example.org (Alice Example)", [("a@example.org", "Alice Example")]),
    ("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [("pete@silly.test", "Pete")]),
    ("(a (nested (comment))) a@example.org", [("a@example.org", "a (nested (comment))")]),
    ('"john doe"@example.org', [('"john doe"@example.org', None)]),
    ('"john.doe"@example.org', [("john.doe@example.org", None)]),
    ("john . doe @ example . org", [("john.doe@example.org", None)]),
    ("a@[192.0.2.1]", [("a@[192.0.2.1]", None)]),
    ("a@[IPv6:2001:db8::1]", [("a@[IPv6:2001:db8::1]", None)]),
    (
        "user%host@relay.org, host!user@relay.org",
        [("user%host@relay.org", None), ("host!user@relay.org", None)],
    ),
    ("user+tag@example.org", [("user+tag@example.org", None)]),
    ("grün@bücher.example", [("grün@bücher.example", None)]),
    ("Team: a@x.org, B <b@x.org>; c@x.org", [("a@x.org", None), ("b@x.org", "B"), ("c@x.org", None)]),
    ("undisclosed-recipients:;", []),
    ("Empty: ; a@x.org", [("a@x.org", None)]),
    ("<@relay1.test,@relay2.test:joe@where.test>", [("joe@where.test", None)]),
    ("<Postmaster>", [("Postmaster", None)]),
    ("=?utf-8?q?J=C3=B6rg?= <j@x.org>", [("j@x.org", "Jörg")]),
    ('"=?utf-8?q?J=C3=B6rg?=" <j@x.org>', [("j@x.org", "Jörg")]),
    ("=?utf-8?q?J=C3=B6rg?= =?utf-8?q?_M=C3=BCller?= <j@x.org>", [("j@x.org", "Jörg Müller")]),
    ("j@x.org (=?utf-8?q?J=C3=B6rg?=)", [("j@x.org", "Jörg")]),
    ("=?utf-8?q?a,b?= <a@x.org>, c@x.org", [("a@x.org", "a,b"), ("c@x.org", None)]),
    ("a@x.org <a@x.org>", [("a@x.org", "a@x.org")]),
    ("cafe\u0301@x.org", [("caf\u00e9@x.org", None)]),
]

BROKEN = [
    ("nobody, a@x.org", [("a@x.org", None)]),
    ("bad@, a@x.org, @bad, c@x.org", [("a@x.org", None), ("c@x.org", None)]),
    ("a@b@c, d@x.org", [("d@x.org", None)]),
    ("a@x.org; b@x.org", [("a@x.org", None), ("b@x.org", None)]),
    ("a@x.org b@x.org", [("a@x.org", None), ("b@x.org", None)]),
    ("<a@x.org> <b@x.org>", [("a@x.org", None), ("b@x.org", None)]),
    ("A <a@x.org> B <b@x.org>", [("a@x.org", "A"), ("b@x.org", "B")]),
    ("A <a@x.org, b@x.org", [("a@x.org", "A"), ("b@x.org", None)]),
    ("<<a@x.org>>, b@x.org", [("a@x.org", None), ("b@x.org", None)]),
    ('"never closed <a@x.org>, b@x.org', [("a@x.org", "never closed"), ("b@x.org", None)]),
    ("(never closed <a@x.org>, b@x.org", [("a@x.org", "never closed"), ("b@x.org", None)]),
    (",,a@x.org,,b@x.org,", [("a@x.org", None), ("b@x.org", None)]),
    ("a@x.org.", [("a@x.org", None)]),
    ("a..b.@docomo.example", [("a..b.@docomo.example", None)]),
    (".a@x.org, b@.x.org, c@x..org", []),
    ("< a@x.org >", [("a@x.org", None)]),
    ("<jo hn@x.org>, b@x.org", [("b@x.org", None)]),
    ("<>", []),
    ("", []),
    ("<", []),
    ("@", []),
    ('"', []),
    ("Alice\\Bob <a@x.org>", [("a@x.org", "AliceBob")]),
    ("Postmaster General <nobody>, a@x.org", [("a@x.org", None)]),
    ("a\x00b@x.org, c@x.org", [("c@x.org", None)]),
    ("a\u200b\u202eb@x.org, c@x.org", [("c@x.org", None)]),
    ("\x07Bell <a@x.org>", [("a@x.org", "\ufffdBell")]),
]


@pytest.mark.parametrize(("text", "expected"), WELL_FORMED + BROKEN)
def test_an_address_list_gives_its_usable_addresses(
    text: str, expected: list[tuple[str, str | None]]
) -> None:
    assert [tuple(mailbox) for mailbox in addresses.parse(text, budget())] == expected


def test_a_name_is_clipped_to_its_column() -> None:
    (mailbox,) = addresses.parse(f'"{"ü" * 600}" <a@x.org>', budget())
    assert mailbox.name == "ü" * 500


def test_addresses_beyond_the_limit_are_left_out_and_noted() -> None:
    for separator in (", ", " , (comment) "):
        account = budget(ParseLimits(addresses=10))
        found = addresses.parse(separator.join(f"u{n}@x.org" for n in range(11)), account)
        assert [mailbox.address for mailbox in found] == [f"u{n}@x.org" for n in range(10)]
        assert account.status == "limited: addresses over 10 (reader 1)"


def test_a_field_of_exactly_the_limit_is_complete() -> None:
    account = budget(ParseLimits(addresses=10))
    assert len(addresses.parse(", ".join(f"u{n}@x.org" for n in range(10)), account)) == 10
    assert account.status == "complete"


def test_both_ways_through_a_list_agree() -> None:
    # A comment at the end sends the whole rest of the list the slow way
    plain = 'A <a@x.org>, "B" <b@x.org>, c@x.org'
    slow = f"(x), {plain}"
    assert addresses.parse(plain, budget()) == addresses.parse(slow, budget())
