"""``relaymail outbox``."""

from __future__ import annotations

from uuid import uuid4

import pytest

from relaymail.store.database import Database
from tests.cli.conftest import Command
from tests.conftest import run_on_reactor


@pytest.fixture
def rows(database: Database) -> list[int]:
    """A pending, a sent and a dead notification."""

    async def insert() -> list[int]:
        found = []
        for state in ("pending", "sent", "dead"):
            made = await database.query(
                "test.outbox",
                "INSERT INTO relaymail.outbox (message_id, email_id, payload, state, last_error, due_at) "
                "VALUES (%s, %s, '{}', %s, 'it''s\x1b', now() + interval '1 hour') RETURNING id",
                (uuid4(), uuid4(), state),
            )
            found.append(made[0][0])
        return found

    inserted: list[int] = run_on_reactor(insert())
    return inserted


def test_notifications_are_listed(relaymail: Command, rows: list[int]) -> None:
    assert [row["id"] for row in relaymail.json("outbox", "list")] == rows[::-1]
    dead = relaymail.json("outbox", "list", "--state", "dead")
    assert [(row["id"], row["state"]) for row in dead] == [(rows[2], "dead")]
    done = relaymail("outbox", "list")
    assert b"it's\\x1b" in done.stdout
    assert b"1 pending (0 due), 1 dead" in done.stderr


def test_why_they_wait_is_told_though_those_listed_have_not_been_tried(
    relaymail: Command, rows: list[int]
) -> None:
    done = relaymail("outbox", "list", "--limit", "1", "--state", "dead")
    assert b"Last error of those that wait: it's\\x1b" in done.stderr


def test_notifications_are_retried(relaymail: Command, rows: list[int]) -> None:
    assert relaymail.json("outbox", "retry", str(rows[2])) == {"retried": 1}
    assert [row["id"] for row in relaymail.json("outbox", "list", "--state", "dead")] == []
    assert relaymail.json("outbox", "retry", "--all-dead") == {"retried": 0}
    # The one just retried is due already
    assert relaymail.json("outbox", "retry", "--all-pending") == {"retried": 1}


def test_a_sent_notification_is_not_sent_again(relaymail: Command, rows: list[int]) -> None:
    done = relaymail("outbox", "retry", str(rows[1]), code=1)
    assert b"neither pending nor dead" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["1", "--all-dead"], ["--all-dead", "--all-pending"]])
def test_what_to_retry_is_said_in_one_way(relaymail: Command, arguments: list[str]) -> None:
    assert "exactly one" in relaymail.error("outbox", "retry", *arguments, code=2)
