"""``relaymail user``."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


def test_a_user_is_added_and_listed(relaymail: Command) -> None:
    made = relaymail.json("user", "add", "Anna@Example.TEST", "--name", "Anna A.")
    assert made["email"] == "Anna@example.test"
    assert relaymail.json("user", "list") == [made]
    assert made["display_name"] == "Anna A."
    assert made["created_at"].endswith("Z")
    lines = relaymail.text("user", "list").splitlines()
    assert lines[0].split() == ["EMAIL", "NAME", "CREATED", "LAST", "LOGIN", "ID"]
    assert made["id"] in lines[1]


def test_an_address_that_is_taken_is_refused(relaymail: Command) -> None:
    relaymail("user", "add", "anna@example.test")
    assert "already belongs to anna@example.test" in relaymail.error("user", "add", "ANNA@example.test")


@pytest.mark.parametrize(
    "wrong", ["anna", "anna@", "@example.test", "a b@example.test", "a@b..test", "x" * 65 + "@b.test"]
)
def test_what_is_no_address_is_wrong_usage(relaymail: Command, wrong: str) -> None:
    assert "is no mail address" in relaymail.error("user", "add", wrong, code=2)


def test_additional_addresses(relaymail: Command) -> None:
    relaymail("user", "add", "anna@example.test")
    relaymail("user", "address", "add", "anna@example.test", "second@example.test")
    relaymail("user", "address", "add", "anna@example.test", "third@example.test", "--unverified")
    found = relaymail.json("user", "address", "list", "anna@example.test")
    assert [(a["address"], a["verified"]) for a in found] == [
        ("second@example.test", True),
        ("third@example.test", False),
    ]
    relaymail("user", "address", "verify", "Anna@example.test", "third@example.test")
    relaymail("user", "address", "remove", "anna@example.test", "second@example.test")
    assert "yes" in relaymail.text("user", "address", "list", "anna@example.test")
    assert "no additional address" in relaymail.error(
        "user", "address", "remove", "anna@example.test", "second@example.test"
    )


def test_a_grant_is_given_in_short_and_in_full(relaymail: Command) -> None:
    user = relaymail.json("user", "add", "anna@example.test")
    relaymail("user", "grant", "anna@example.test", "Info@Example.test")
    relaymail("user", "grant", user["id"], "@Bücher.example")
    done = relaymail.json("user", "grant", "add", "anna@example.test", "team@example.test")
    assert done == {
        "user": "anna@example.test",
        "user_id": user["id"],
        "address": "team@example.test",
        "done": "granted",
    }
    found = relaymail.json("user", "grant", "list", "anna@example.test")
    assert [grant["address"] for grant in found] == [
        "@xn--bcher-kva.example",
        "info@example.test",
        "team@example.test",
    ]
    relaymail("user", "grant", "remove", "anna@example.test", "@bücher.example")
    assert len(relaymail.json("user", "grant", "list", "anna@example.test")) == 2


def test_an_unknown_user_is_not_found(relaymail: Command) -> None:
    assert "There is no user bob@example.test" in relaymail.error("key", "list", "bob@example.test")
