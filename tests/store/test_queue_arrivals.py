"""How mail becomes queued: with its message, when it is due, and without waiting for other mail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from msgspec.structs import replace

from relaymail.message.envelope import Envelope, EnvelopeRecipient
from relaymail.store.database import Database, Transaction
from relaymail.store.rows import Rows
from tests.store.queued import (
    addresses,
    one,
    put,
    queue_of,
)
from tests.store.records import record


async def test_recipients_elsewhere_are_queued_with_their_message(database: Database, tmp_path: Path) -> None:
    message = await put(
        database,
        tmp_path,
        "a@x.example",
        "b@x.example",
        "c@y.example",
        parameters={"RET": "HDRS", "MT-PRIORITY": "4"},
        rcpt={"NOTIFY": "NEVER"},
    )
    assert await one(database, "SELECT count(*) FROM relaymail.arrival") == 2
    first, second = sorted(await queue_of(database).claim(10), key=lambda job: job.destination)
    assert (first.destination, second.destination) == ("x.example", "y.example")
    assert addresses([first]) == ["a@x.example", "b@x.example"]
    assert [recipient.n for recipient in first.recipients] == [0, 1]
    assert first.recipients[0].parameters == {"NOTIFY": "NEVER"}
    assert first.message_id == message
    assert first.reverse_path == "anna@example.test"
    assert first.parameters["RET"] == "HDRS"
    assert first.priority == 4
    assert first.size == 25
    assert not first.probe


async def test_what_stays_here_costs_nothing(tmp_path: Path) -> None:
    made = await record(b"Subject: x\r\n\r\n", tmp_path)
    rows = Rows()
    rows.add(made, raw=b"Subject: x\r\n\r\n", attachments=[])
    statement, _ = rows.statement()
    assert "relaymail.message " in statement
    assert "relaymail.queue" not in statement
    assert "relaymail.arrival" not in statement


async def test_a_message_for_later_is_due_and_begins_its_life_later(
    database: Database, tmp_path: Path
) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    await put(database, tmp_path, "a@x.example", release_at=later)
    queue = queue_of(database)
    assert await queue.claim(10) == []
    assert await one(database, "SELECT due_at = queued_at FROM relaymail.queue")
    await database.execute(
        "test.time",
        "UPDATE relaymail.queue SET queued_at = now(), due_at = now(); SELECT relaymail.queue_repair()",
    )
    assert addresses(await queue.claim(10)) == ["a@x.example"]


async def test_a_host_whose_clock_is_wrong_queues_all_the_same(database: Database, tmp_path: Path) -> None:
    wrong = datetime.now(UTC) + timedelta(days=400)
    await put(database, tmp_path, "a@x.example", received_at=wrong)
    past = datetime.now(UTC) - timedelta(days=400)
    await put(database, tmp_path, "b@x.example", received_at=past, release_at=past)
    assert await one(
        database,
        "SELECT bool_and(queued_at BETWEEN now() - interval '1 minute' AND now()) FROM relaymail.queue",
    )
    assert addresses(await queue_of(database).claim(10)) == ["a@x.example", "b@x.example"]


async def test_two_messages_for_one_domain_do_not_wait_for_each_other(
    database: Database, tmp_path: Path
) -> None:
    made = await record(b"Subject: x\r\n\r\n", tmp_path)
    rows = Rows()
    recipient = EnvelopeRecipient("a@x.example", destination="x.example")
    rows.add(replace(made, envelope=Envelope("", (recipient,)), emails=()), raw=b"", attachments=[])

    async def slow(transaction: Transaction) -> None:
        await transaction.execute(*rows.statement())
        # While that one is not committed: another is, and is claimed
        await put(database, tmp_path, "b@x.example")
        assert addresses(await queue_of(database).claim(10)) == ["b@x.example"]

    await database.transaction("test.slow", slow, timeout=60)
    assert addresses(await queue_of(database).claim(10)) == ["a@x.example"]
