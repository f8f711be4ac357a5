"""What a sender asked to be told of (RFC 3461 4, RFC 6533 3)."""

from __future__ import annotations

import pytest

from relaymail.message.dsn_request import (
    Action,
    Parameters,
    envelope_id,
    original_recipient,
    typed_address,
    wanted,
    wants_all,
)


@pytest.mark.parametrize(
    ("notify", "actions"),
    [
        (None, {"failed", "delayed"}),
        ("NEVER", set()),
        ("FAILURE", {"failed"}),
        ("failure,delay", {"failed", "delayed"}),
        ("SUCCESS", {"delivered", "relayed", "expanded"}),
        ("SUCCESS,FAILURE,DELAY", {"failed", "delayed", "delivered", "relayed", "expanded"}),
    ],
)
def test_notify_says_what_is_reported(notify: str | None, actions: set[Action]) -> None:
    parameters: Parameters = {} if notify is None else {"NOTIFY": notify}
    every: tuple[Action, ...] = ("failed", "delayed", "delivered", "relayed", "expanded")
    assert {action for action in every if wanted(action, parameters)} == actions


def test_ret_says_whether_the_whole_message_is_wanted() -> None:
    assert wants_all({})
    assert wants_all({"RET": "full"})
    assert not wants_all({"RET": "hdrs"})


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("QQ314159", "QQ314159"),
        ("a+2Bb+3Dc", "a+b=c"),
        ("with+20space", "with space"),
        ("line+0D+0Abreak", "line+0D+0Abreak"),
        ("high+FF", "high+FF"),
    ],
)
def test_envid_is_decoded_unless_it_could_do_harm(value: str, decoded: str) -> None:
    assert envelope_id({"ENVID": value}) == decoded
    assert envelope_id({}) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("rfc822;Bob+2Bx@Example.org", ("rfc822", "Bob+x@Example.org")),
        ("x400;c+3Dde", ("x400", "c=de")),
        ("utf-8;j\\x{FC}rgen@example.org", ("utf-8", "jürgen@example.org")),
        ("UTF-8;jürgen@example.org", ("UTF-8", "jürgen@example.org")),
        ("utf-8;a\\x{0D}\\x{0A}b@x", ("utf-8", "a\\x{0D}\\x{0A}b@x")),
        ("utf-8;a\\x{FFFFFF}@x", ("utf-8", "a\\x{FFFFFF}@x")),
        ("utf-8;a\\x{D800}@x", ("utf-8", "a\\x{D800}@x")),
        ("rfc822;a+0A@x", ("rfc822", "a+0A@x")),
    ],
)
def test_orcpt_is_decoded_unless_it_could_do_harm(value: str, found: tuple[str, str]) -> None:
    assert original_recipient({"ORCPT": value}) == found
    assert original_recipient({}) is None
    assert original_recipient({"ORCPT": None}) is None


def test_an_address_has_its_type() -> None:
    assert typed_address("rfc822", "a@b.example", utf8=False) == "rfc822;a@b.example"
    assert typed_address("rfc822", "ä@b.example", utf8=True) == "utf-8;ä@b.example"
    assert typed_address("rfc822", "ä+\\@b.example", utf8=False) == r"utf-8;\x{E4}\x{2B}\x{5C}@b.example"
