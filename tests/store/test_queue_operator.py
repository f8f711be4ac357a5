"""What an operator does to the queue, by the functions that the command line and SQL share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relaymail.store import debts, queue_admin
from relaymail.store.database import Database, DatabaseError
from relaymail.store.queue_admin import Choice
from tests.conftest import reactor
from tests.store.queued import (
    addresses,
    all_ids,
    deferred,
    delivered,
    expire,
    failed,
    fill,
    ids,
    one,
    put,
    queue_of,
    states,
)
from tests.support.waiting import until

PLACE: dict[str, Any] = {"host": "mx", "address": "192.0.2.1:25", "tls": None}


async def test_held_rows_wait_until_they_are_released(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    rows = await all_ids(database)
    assert await queue_admin.hold(database, rows) == 1
    assert await queue_admin.hold(database, rows) == 0
    assert await queue.claim(10) == []
    await queue.repair()
    assert await queue.claim(10) == []
    assert await queue_admin.release(database, rows) == 1
    assert await queue_admin.release(database, rows) == 0
    assert addresses(await queue.claim(10)) == ["a@x.example"]


async def test_a_row_held_under_a_lease_is_not_begun(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue_admin.hold(database, ids(job))
    assert await queue.begin_transfer(job, ids(job), **PLACE) == set()
    assert await queue.extend([job]) == set()
    assert await queue.give_back([job]) == set(ids(job))
    assert await states(database) == {"a@x.example": "held"}
    assert await queue.claim(10) == []


@pytest.mark.parametrize("what", ["hold", "cancel"])
async def test_what_is_delivered_all_the_same_reads_delivered(
    database: Database, tmp_path: Path, what: str
) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    assert await queue.begin_transfer(job, ids(job), **PLACE) == set(ids(job))
    await getattr(queue_admin, what)(database, ids(job))
    assert await queue.settle(delivered(job)) == set(ids(job))
    assert await states(database) == {"a@x.example": "delivered"}


async def test_a_held_row_that_is_deferred_stays_held_and_one_that_fails_has_failed(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "later@x.example")
    await put(database, tmp_path, "never@y.example")
    queue = queue_of(database)
    first, second = sorted(await queue.claim(10), key=lambda job: job.destination)
    await queue_admin.hold(database, await all_ids(database))
    await queue.settle(deferred(first, delay=0))
    await queue.settle(failed(second))
    assert await states(database) == {"later@x.example": "held", "never@y.example": "failed"}
    assert await one(database, "SELECT attempts FROM relaymail.queue WHERE state = 'held'") == 1
    assert await queue.claim(10) == []


async def test_a_lease_that_ended_while_the_row_was_held_leaves_its_doubt(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.begin_transfer(job, ids(job), **PLACE)
    await queue_admin.hold(database, ids(job))
    await expire(database)
    await queue_admin.release(database, ids(job))
    (again,) = await queue.claim(10)
    assert again.recipients[0].in_doubt


async def test_a_row_released_while_it_is_being_sent_stays_with_its_worker(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue_admin.hold(database, ids(job))
    await queue_admin.release(database, ids(job))
    assert await queue.claim(10) == []
    assert await queue.begin_transfer(job, ids(job), **PLACE) == set(ids(job))


async def test_a_cancelled_row_is_over_and_its_worker_changes_nothing(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example", "b@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    first, second = ids(job)
    assert await queue_admin.cancel(database, [first]) == 1
    assert await queue_admin.cancel(database, [second], "Sent by mistake") == 1
    assert await queue_admin.cancel(database, [first, second]) == 0
    assert await queue.begin_transfer(job, ids(job), **PLACE) == set()
    await queue.settle(failed(job, owes="failed"))
    rows = await database.query(
        "test.rows", "SELECT state, owed_dsn, last_reply FROM relaymail.queue ORDER BY id"
    )
    assert [row[:2] for row in rows] == [("cancelled", None), ("cancelled", "failed")]
    (debt,) = await debts.claim(database, 10, 60, gather=0)
    assert [recipient.address for recipient in debt.recipients] == ["b@x.example"]


async def test_the_sender_of_a_cancelled_row_hears_the_reason(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    await queue_admin.cancel(database, await all_ids(database), "Sent by mistake")
    (debt,) = await debts.claim(database, 10, 60, gather=0)
    assert debt.action == "failed"
    assert (debt.recipients[0].status, debt.recipients[0].reply) == ("5.7.1", "Sent by mistake")


async def test_a_rerouted_row_takes_the_new_way(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example", "held@x.example")
    queue = queue_of(database)
    await queue.block("x.example", "refused")
    rows = await all_ids(database)
    await queue_admin.hold(database, rows[1:])
    assert await queue_admin.reroute(database, rows, "backup.example.net") == 2
    (job,) = await queue.claim(10)
    assert (job.destination, addresses([job])) == ("backup.example.net", ["a@x.example"])
    await queue_admin.release(database, rows)
    (other,) = await queue.claim(10)
    assert other.destination == "backup.example.net"


async def test_a_row_rerouted_under_a_lease_is_not_begun_on_the_old_way(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    await put(database, tmp_path, "b@x.example")
    queue = queue_of(database)
    first, second = await queue.claim(10)
    # This one is behind its final dot: it ends on the old way, and only a deferral takes it to the new
    assert await queue.begin_transfer(second, ids(second), **PLACE)
    await queue_admin.reroute(database, await all_ids(database), "[192.0.2.9]")
    assert await queue.begin_transfer(first, ids(first), **PLACE) == set()
    assert await queue.claim(10) == []
    await queue.give_back([first])
    await queue.settle(deferred(second, delay=0))
    jobs = await queue.claim(10)
    assert {job.destination for job in jobs} == {"[192.0.2.9]"}
    assert len(jobs) == 2


@pytest.mark.parametrize(
    "destination", ["", "X.example", "x..example", "a b", "-", "[", "[x]", "bücher.example", "x.example."]
)
async def test_mail_is_rerouted_to_domains_and_addresses_only(database: Database, destination: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        await queue_admin.reroute(database, [1], destination)
    assert refused.value.sqlstate == "22023"


@pytest.mark.parametrize(
    "destination", ["x.example", "xn--bcher-kva.example", "[192.0.2.1]", "[ipv6:2001:db8::1]"]
)
async def test_these_are_destinations(database: Database, destination: str) -> None:
    assert await queue_admin.reroute(database, [1], destination) == 0


async def test_a_retry_makes_due_and_asks_the_host_again(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.settle(deferred(job, delay=3600))
    await queue.block("x.example", "refused")
    queued_at = await one(database, "SELECT queued_at FROM relaymail.queue")
    assert await queue_admin.retry(database, ids(job)) == 1
    (again,) = await queue.claim(10)
    assert again.recipients[0].attempts == 1
    assert again.recipients[0].queued_at == queued_at


async def test_a_retry_leaves_a_row_that_is_being_sent_and_one_that_is_done(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    await put(database, tmp_path, "b@y.example")
    await put(database, tmp_path, "c@z.example")
    queue = queue_of(database)
    jobs = {job.destination: job for job in await queue.claim(10)}
    await queue.settle(delivered(jobs["y.example"]))
    await queue_admin.hold(database, ids(jobs["z.example"]))
    assert await queue_admin.retry(database, await all_ids(database)) == 0
    assert await queue.claim(10) == []


async def test_a_failed_row_that_is_retried_begins_a_new_life(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.settle(failed(job, owes="failed"))
    await database.execute("test.age", "UPDATE relaymail.queue SET queued_at = now() - interval '6 days'")
    assert await queue_admin.retry(database, ids(job)) == 1
    # The report was not made yet, and is not true any more
    assert await debts.claim(database, 10, 60, gather=0) == []
    assert await queue.claim_expired(10, life=5 * 86400, null_sender_life=86400) == []
    (again,) = await queue.claim(10)
    assert again.recipients[0].attempts == 1
    await queue.settle(delivered(again))
    numbers = await database.query(
        "test.numbers", "SELECT number, outcome FROM relaymail.attempts ORDER BY 1"
    )
    assert numbers == [(1, "failed"), (2, "delivered")]


async def test_workers_are_told_of_what_an_operator_makes_due(database: Database, tmp_path: Path) -> None:
    heard: list[str] = []
    database.listen("relaymail_queue", heard.append)
    await until(reactor, lambda: heard == [""])
    await put(database, tmp_path, "a@x.example")
    rows = await all_ids(database)
    await queue_admin.retry(database, rows)
    await until(reactor, lambda: len(heard) == 2)
    await queue_admin.hold(database, rows)
    await queue_admin.release(database, rows)
    await until(reactor, lambda: len(heard) == 3)
    await queue_admin.reroute(database, rows, "y.example")
    await until(reactor, lambda: len(heard) == 4)


async def test_rows_are_chosen_by_what_they_are(database: Database, tmp_path: Path) -> None:
    message = await put(database, tmp_path, "a@x.example", "b@y.example", sender="Anna@example.test")
    await put(database, tmp_path, "a@x.example", sender="")
    first, second, third = await all_ids(database)
    await queue_admin.hold(database, [third])
    for choice, expected in (
        (Choice(), [first, second, third]),
        (Choice(ids=[first]), [first]),
        (Choice(ids=[third], messages=[message]), [first, second, third]),
        (Choice(messages=[message], destination="y.example"), [second]),
        (Choice(destination="x.example"), [first, third]),
        (Choice(states=["queued"]), [first, second]),
        (Choice(states=["held", "failed"]), [third]),
        (Choice(sender="anna@EXAMPLE.test"), [first, second]),
        (Choice(sender=""), [third]),
        (Choice(recipient="A@x.example"), [first, third]),
    ):
        assert await queue_admin.find(database, choice) == expected
        assert [row.id for row in await queue_admin.list_rows(database, choice, 10)] == expected


async def test_the_views_tell_what_is_going_on(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example", "b@x.example")
    await fill(database, "dead.example", 7)
    await database.execute(
        "test.set",
        "INSERT INTO relaymail.destination (destination, tls_level, note) VALUES ('z.example', 'dane', 'n')",
    )
    queue = queue_of(database, "host-1")
    await queue.block("dead.example", "connection refused")
    (job,) = await queue.claim(10)
    await queue_admin.hold(database, [ids(job)[1]])
    first = (await queue_admin.list_rows(database, Choice(ids=[ids(job)[0]]), 1))[0]
    assert (first.state, first.sending, first.lease_owner, first.sender) == (
        "queued",
        True,
        "host-1",
        "anna@example.test",
    )
    rows = {row.destination: row for row in await queue_admin.list_destinations(database, 10)}
    assert list(rows) == ["dead.example", "x.example", "z.example"]
    dead, x, z = rows.values()
    assert (dead.queued, dead.due, dead.failures, dead.reason) == (7, 7, 1, "connection refused")
    assert (x.queued, x.held, x.sending, x.failures) == (1, 1, 1, None)
    assert (z.queued, z.tls_level, z.note) == (0, "dane", "n")


async def test_many_rows_are_changed_in_parts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(database, "x.example", 100)
    monkeypatch.setattr(queue_admin, "BATCH", 30)
    assert await queue_admin.hold(database, await all_ids(database)) == 100
