"""``relaymail key``."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from relaymail.hosting.authenticator import AuthenticationFailed, Authenticator
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from tests.cli.conftest import Command
from tests.conftest import reactor
from tests.support.waiting import until


@pytest.fixture
def anna(relaymail: Command) -> str:
    """A user."""
    relaymail("user", "add", "anna@example.test")
    return "anna@example.test"


def test_a_key_is_printed_once(relaymail: Command, anna: str) -> None:
    made = relaymail.json("key", "create", anna, "--name", "laptop")
    assert next(iter(made)) == "key"
    assert len(made["key"]) == 44
    assert made["scopes"] == ["smtp"]
    listed = relaymail("key", "list", "--json").stdout.decode()
    assert made["id"] in listed
    assert made["prefix"] in listed
    assert made["key"] not in listed
    printed = relaymail.text("key", "create", anna, "--name", "phone", "--scope", "smtp", "--scope", "imap")
    assert "key" in printed
    assert [key["scopes"] for key in relaymail.json("key", "list", anna)] == [["smtp"], ["imap", "smtp"]]


def test_a_key_needs_a_name(relaymail: Command, anna: str) -> None:
    assert "--name" in relaymail.error("key", "create", anna, code=2)
    assert "1 to 100" in relaymail.error("key", "create", anna, "--name", "")


def test_a_key_is_revoked_by_its_prefix(relaymail: Command, anna: str) -> None:
    made = relaymail.json("key", "create", anna, "--name", "laptop")
    revoked = relaymail.json("key", "revoke", made["prefix"])
    assert revoked["id"] == made["id"]
    assert revoked["revoked_at"]
    assert "no key" in relaymail.error("key", "revoke", "nosuchprefix")


async def test_a_running_host_refuses_a_revoked_key_at_once(relaymail: Command, database: Database) -> None:
    """The host's authenticator remembers the key, and hears of the revocation from another process."""

    def command(*arguments: str) -> Deferred[dict[str, str]]:
        return deferToThread(relaymail.json, *arguments)

    authenticator = Authenticator(Accounts(database, clock=reactor), salt=None, reactor=reactor)
    heard: list[str] = []
    database.listen("relaymail_key_revoked", heard.append)
    authenticator.listen(database)
    try:
        await command("user", "add", "anna@example.test")
        made = await command("key", "create", "anna@example.test", "--name", "laptop")
        await authenticator.verify("anna@example.test", made["key"])
        await until(reactor, lambda: len(heard) > 0)
        await command("key", "revoke", made["id"])
        await until(reactor, lambda: made["id"] in heard)
        with pytest.raises(AuthenticationFailed):
            await authenticator.verify("anna@example.test", made["key"])
    finally:
        await authenticator.stop()
