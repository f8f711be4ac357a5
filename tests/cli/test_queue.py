"""``relaymail queue``, ``trace`` and ``suppression``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from relaymail.store.database import Database
from tests.cli.conftest import Command
from tests.conftest import run_on_reactor
from tests.store.queued import deferred, delivered, failed, ids, put, queue_of


@pytest.fixture
def messages(database: Database, tmp_path: Path) -> list[UUID]:
    """One message to three hosts: it was delivered, deferred and refused; and one that has not been tried."""

    async def make() -> list[UUID]:
        made = [await put(database, tmp_path, "ok@a.example", "later@b.example", "no@c.example")]
        queue = queue_of(database, "host-1")
        for job in await queue.claim(10):
            place: dict[str, Any] = {"host": "mx.example.org", "address": "192.0.2.25:25", "tls": "TLSv1.3"}
            await queue.begin_transfer(job, ids(job), **place)
            outcome = {"a": delivered, "b": deferred, "c": failed}[job.destination[0]]
            await queue.settle(outcome(job, owes="failed" if outcome is failed else None))
        await queue.block("b.example", "connection refused\x1b[2J")
        made.append(await put(database, tmp_path, "new@b.example", sender=""))
        return made

    made: list[UUID] = run_on_reactor(make())
    return made


def rows(relaymail: Command, *options: str) -> dict[str, Any]:
    return {row["recipient"]: row for row in relaymail.json("queue", "list", *options)}


def test_what_waits_is_listed(relaymail: Command, messages: list[UUID]) -> None:
    done = relaymail("queue", "list")
    assert b"451 4.3.0 Later" in done.stdout
    assert b"new@b.example" in done.stdout
    assert b"ok@a.example" not in done.stdout
    assert b"2 queued (0 being sent), 0 held, 1 destinations" in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--state", "failed", "--state", "delivered", "--limit", "2"], ["ok@a.example", "no@c.example"]),
        (["--domain", "B.example", "--sender", "<>"], ["new@b.example"]),
    ],
)
def test_rows_are_chosen(
    relaymail: Command, messages: list[UUID], options: list[str], expected: list[str]
) -> None:
    assert list(rows(relaymail, *options)) == expected


def test_a_row_is_shown_with_its_tries(relaymail: Command, messages: list[UUID]) -> None:
    shown = relaymail.json("queue", "show", str(messages[0])[:23])
    assert [one["row"]["recipient"] for one in shown] == ["ok@a.example", "later@b.example", "no@c.example"]
    assert [(a["outcome"], a["host"], a["reply"]) for a in shown[1]["attempts"]] == [
        ("deferred", "mx.example.org", "451 4.3.0 Later")
    ]
    text = relaymail.text("queue", "show", "2")
    assert "later@b.example" in text
    assert "192.0.2.25:25" in text
    assert "There is no row 99" in relaymail.error("queue", "show", "99")


def test_destinations_are_listed(relaymail: Command, messages: list[UUID]) -> None:
    assert "connection refused\\x1b[2J" in relaymail.text("queue", "destinations")


def test_rows_are_held_released_and_retried(relaymail: Command, messages: list[UUID]) -> None:
    assert relaymail.json("queue", "hold", "--domain", "b.example") == {"found": 2, "changed": 2}
    assert relaymail.text("queue", "release", "2") == "1 rows released.\n"
    assert {address: row["state"] for address, row in rows(relaymail).items()} == {
        "later@b.example": "queued",
        "new@b.example": "held",
    }
    # Failed ones only where that is said
    assert relaymail.json("queue", "retry", "--domain", "b.example") == {"found": 1, "changed": 1}
    assert relaymail.json("queue", "retry", "--state", "failed") == {"found": 1, "changed": 1}


def test_what_did_not_change_is_told(relaymail: Command, messages: list[UUID]) -> None:
    done = relaymail("queue", "hold", "1", "2", code=1)
    assert done.stdout == b"1 rows held.\n"
    assert b"1 of these rows did not change: only what is queued can" in done.stderr
    assert b"None of these rows" in relaymail("queue", "retry", "99", code=1).stderr


def test_which_rows_has_to_be_said(relaymail: Command) -> None:
    assert "Say which rows" in relaymail.error("queue", "cancel", code=2)


def test_cancelling_asks(relaymail: Command, messages: list[UUID]) -> None:
    assert "say --yes" in relaymail.error("queue", "cancel", "--domain", "b.example")
    told = ("--bounce", "By mistake", "--yes")
    assert relaymail.json("queue", "cancel", "2", *told) == {"found": 1, "changed": 1}
    assert relaymail.json("queue", "cancel", "--sender", "<>", "--yes") == {"found": 1, "changed": 1}
    cancelled = rows(relaymail, "--state", "cancelled")
    assert cancelled["later@b.example"]["owed_dsn"] == "failed"
    assert cancelled["new@b.example"]["owed_dsn"] is None


def test_mail_is_rerouted(relaymail: Command, messages: list[UUID]) -> None:
    arguments = ("queue", "reroute", "--domain", "b.example", "--to")
    assert "neither a domain" in relaymail.error(*arguments, "a b", code=2)
    assert relaymail.json(*arguments, "Bücher.example") == {"found": 2, "changed": 2}
    assert relaymail.json("queue", "reroute", "2", "--to", "[192.0.2.1]") == {"found": 1, "changed": 1}
    assert {row["destination"] for row in rows(relaymail).values()} == {
        "xn--bcher-kva.example",
        "[192.0.2.1]",
    }


# --- relaymail trace


def test_a_trace_is_in_order_of_time(relaymail: Command, messages: list[UUID]) -> None:
    trace = relaymail.json("trace", str(messages[0]))
    assert trace["id"] == str(messages[0])
    times = [entry["at"] for entry in trace["entries"]]
    assert times == sorted(times)
    told = [(entry["what"], entry["recipient"]) for entry in trace["entries"]]
    assert told[:4] == [
        ("accepted", None),
        ("queued", "ok@a.example"),
        ("queued", "later@b.example"),
        ("queued", "no@c.example"),
    ]
    assert set(told[4:]) == {
        ("delivered", "ok@a.example"),
        ("deferred", "later@b.example"),
        ("failed", "no@c.example"),
        ("report owed", "no@c.example"),
        ("next try", "later@b.example"),
    }
    delivered_at = next(entry for entry in trace["entries"] if entry["what"] == "delivered")
    assert delivered_at["facts"]["tls"] == "TLSv1.3"
    text = relaymail.text("trace", str(messages[0]))
    assert "try 1, mx.example.org [192.0.2.25:25], TLSv1.3, phase final-dot: 250 2.0.0 Ok" in text
    assert "session SESSION" in text


def test_a_message_is_found_by_each_of_its_names(
    relaymail: Command, messages: list[UUID], database: Database
) -> None:
    header = relaymail.json("trace", "4")["header_message_id"]
    for name in (str(messages[1])[:23], f"<{header}>"):
        assert relaymail.json("trace", name)["id"] == str(messages[1])
    assert "no row 99" in relaymail.error("trace", "99")
    assert "no message with the Message-ID" in relaymail.error("trace", "<nobody@example.test>")

    async def same() -> None:
        await database.execute("test.same", "UPDATE relaymail.message SET message_id = 'twice@example.test'")

    run_on_reactor(same())
    error = relaymail.error("trace", "twice@example.test")
    assert all(str(message) in error for message in messages)


def test_an_old_message_is_found_by_its_message_id(relaymail: Command, database: Database) -> None:
    async def make() -> None:
        await database.execute(
            "test.old",
            "INSERT INTO relaymail.message (id, received_at, listener, session_id, client_address,"
            " client_name, reverse_path, size_bytes, sha256, trace_headers, message_id, from_address,"
            " subject, parse_status, email_ids) VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', now(), 'mx',"
            " 'S', '192.0.2.1', 'c', '', 1, '', '', 'old@example.test', '', '', 'complete', '{}')",
        )

    run_on_reactor(make())
    assert relaymail.json("trace", "old@example.test")["id"] == "01890a5d-ac96-774b-bcce-b302099a8057"


def test_a_trace_tells_of_a_block_a_cancellation_and_notifications(
    relaymail: Command, messages: list[UUID], database: Database
) -> None:
    async def make() -> None:
        await database.execute(
            "test.outbox",
            """
            INSERT INTO relaymail.outbox (message_id, email_id, payload, state, last_error, finished_at)
            VALUES (%s, gen_random_uuid(), '{}', 'dead', '404', now()),
                   (%s, gen_random_uuid(), '{}', 'pending', NULL, NULL);
            INSERT INTO relaymail.event (message_id, kind, detail)
            VALUES (%s, 'notified', '{"email_id": "e"}')
            """,
            (messages[1], messages[1], messages[1]),
        )

    run_on_reactor(make())
    told = {entry["what"]: entry["text"] for entry in relaymail.json("trace", "4")["entries"]}
    assert "could not be reached" in told["next try"]
    assert told["notified"] == "email_id e"
    assert "404" in told["notification given up"]
    assert "notification due" in told
    relaymail("queue", "cancel", "4", "--yes")
    assert "cancelled" in {entry["what"] for entry in relaymail.json("trace", "4")["entries"]}


# --- relaymail suppression


def test_suppressed_addresses_are_listed_and_removed(relaymail: Command, messages: list[UUID]) -> None:
    (entry,) = relaymail.json("suppression", "list")
    assert (entry["address"], entry["status"], entry["message_id"]) == (
        "no@c.example",
        "5.1.1",
        str(messages[0]),
    )
    assert "550 5.1.1 No such user" in relaymail.text("suppression", "list", "--match", "C.EXAMPLE")
    assert relaymail.json("suppression", "remove", "NO@c.example") == {"removed": 1}
    assert b"1 of these addresses" in relaymail("suppression", "remove", "no@c.example", code=1).stderr


def test_an_address_is_suppressed_by_hand(relaymail: Command) -> None:
    entry = json.loads(
        relaymail("suppression", "add", "Anna@Bücher.example", "--reason", "Has left", "--json").stdout
    )
    assert (entry["address"], entry["reply"]) == ("anna@xn--bcher-kva.example", "Has left")
    assert "for 7 days" in relaymail.text("suppression", "add", "b@x.example", "--days", "7")
    assert "is no address" in relaymail.error("suppression", "add", "nonsense", code=2)
    assert len(relaymail.json("suppression", "list")) == 2
