"""Claims of the queue: nothing is lost, nothing is had by two, the late change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.defer import Deferred, gatherResults

from relaymail.store.database import Database, Transaction
from relaymail.store.queue import Job
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


class Crash(Exception):
    """Rolls a transaction back, as the end of a process does."""


async def test_no_two_claims_have_the_same_row(database: Database) -> None:
    for n in range(7):
        await fill(database, f"d{n}.example", 40, priority=n % 3)
    claimed: list[int] = []

    async def work(owner: str) -> None:
        queue = queue_of(database, owner)
        while jobs := await queue.claim(9, share=4):
            claimed.extend(ids(*jobs))

    await gatherResults([Deferred.fromCoroutine(work(f"host-{n}")) for n in range(4)], consumeErrors=True)
    # What one claim has locked another passes over: look once more
    await work("last")
    assert len(claimed) == len(set(claimed)) == 280


async def test_a_claim_that_dies_loses_nothing(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    await put(database, tmp_path, "b@y.example")

    async def dies(transaction: Transaction) -> None:
        rows = await transaction.query(
            "SELECT * FROM relaymail.queue_claim(%s, 'dead', interval '1 hour', 10, 10, '{}')", (uuid4(),)
        )
        assert len(rows) == 2
        assert await transaction.query("SELECT FROM relaymail.arrival") == []
        raise Crash

    with pytest.raises(Crash):
        await database.transaction("test.dies", dies)
    assert addresses(await queue_of(database).claim(10)) == ["a@x.example", "b@y.example"]


async def test_what_arrives_while_a_claim_empties_its_lane_is_not_lost(
    database: Database, tmp_path: Path
) -> None:
    queue = queue_of(database)
    await put(database, tmp_path, "a@x.example")
    (job,) = await queue.claim(10, lease=0)
    await queue.settle(delivered(job))
    later: list[Deferred[list[Job]]] = []

    async def empties(transaction: Transaction) -> None:
        await transaction.query(
            "SELECT * FROM relaymail.queue_claim(%s, 'other', interval '1 hour', 10, 10, '{}')", (uuid4(),)
        )
        assert await transaction.query("SELECT FROM relaymail.lane") == []
        await put(database, tmp_path, "b@x.example")
        # Waits for the lane
        later.append(Deferred.fromCoroutine(queue.claim(10)))
        await database.query("test.turn", "SELECT 1")

    await database.transaction("test.empties", empties)
    assert addresses(await later[0]) == ["b@x.example"]


async def test_an_expired_lease_is_claimed_again_and_the_late_worker_changes_nothing(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    late, other = queue_of(database, "late"), queue_of(database, "other")
    (lost,) = await late.claim(10, lease=0)
    (found,) = await other.claim(10)
    assert ids(found) == ids(lost)
    assert found.token != lost.token
    before = await one(database, "SELECT queue::text FROM relaymail.queue")
    where: dict[str, Any] = {"host": "mx", "address": "192.0.2.1:25", "tls": None}
    assert await late.extend([lost]) == set()
    assert await late.begin_transfer(lost, ids(lost), **where) == set()
    assert await late.settle(delivered(lost)) == set()
    assert await late.settle(deferred(lost)) == set()
    assert await late.settle(failed(lost)) == set()
    assert await late.give_back([lost]) == set()
    assert await one(database, "SELECT queue::text FROM relaymail.queue") == before
    assert await one(database, "SELECT count(*) FROM relaymail.attempt") == 0
    assert await one(database, "SELECT count(*) FROM relaymail.suppression") == 0
    assert await other.settle(delivered(found)) == set(ids(found))


async def test_a_late_result_counts_while_nobody_else_has_the_row(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10, lease=0)
    assert await queue.settle(delivered(job)) == set(ids(job))
    assert await queue.claim(10) == []
    assert await states(database) == {"a@x.example": "delivered"}


async def test_a_lease_that_is_kept_alive_is_not_claimed(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10, lease=0)
    assert await queue.extend([job], 60) == set(ids(job))
    assert await queue.claim(10) == []
    # No heartbeat shortens a lease
    assert await queue.extend([job], 0) == set(ids(job))
    assert await queue.claim(10) == []
    await expire(database)
    assert addresses(await queue.claim(10)) == ["a@x.example"]


async def test_what_is_given_back_is_due_at_once_and_has_not_been_tried(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    assert await queue.begin_transfer(job, ids(job), host="mx", address="192.0.2.1:25", tls=None)
    assert await queue.give_back([job]) == set(ids(job))
    (again,) = await queue.claim(10)
    assert again.recipients[0].attempts == 0
    assert not again.recipients[0].in_doubt
    assert await one(database, "SELECT count(*) FROM relaymail.attempt") == 0


async def test_a_transaction_has_no_more_recipients_than_its_destination_wants(database: Database) -> None:
    await fill(database, "x.example", 7)
    await fill(database, "y.example", 70)
    await database.execute(
        "test.override",
        "INSERT INTO relaymail.destination (destination, max_recipients) VALUES ('x.example', 3)",
    )
    jobs = await queue_of(database).claim(200, share=100)
    assert sorted((job.destination, len(job.recipients)) for job in jobs) == [
        ("x.example", 1),
        ("x.example", 3),
        ("x.example", 3),
        ("y.example", 20),
        ("y.example", 50),
    ]


async def test_who_gets_the_same_message_comes_along(database: Database) -> None:
    for count in (120, 30):
        await fill(database, "x.example", count)
    await fill(database, "y.example", 8)
    await database.execute(
        "test.override",
        "INSERT INTO relaymail.destination (destination, max_recipients) VALUES ('y.example', 6)",
    )
    queue = queue_of(database)
    sizes: list[tuple[str, int]] = []
    while jobs := await queue.claim(10, share=2, along=50):
        sizes += [(job.destination, len(job.recipients)) for job in jobs]
    assert sorted(sizes) == [
        ("x.example", 20),
        ("x.example", 30),
        ("x.example", 50),
        ("x.example", 50),
        ("y.example", 2),
        ("y.example", 6),
    ]


async def test_only_who_may_be_sent_to_comes_along(database: Database) -> None:
    await fill(database, "x.example", 6)
    held, later, cancelled, *_ = await all_ids(database)
    await database.query("test.hold", "SELECT relaymail.queue_hold(ARRAY[%s]::bigint[])", (held,))
    await database.query("test.cancel", "SELECT relaymail.queue_cancel(ARRAY[%s]::bigint[])", (cancelled,))
    await database.execute(
        "test.later", "UPDATE relaymail.queue SET due_at = now() + interval '1 hour' WHERE id = %s", (later,)
    )
    queue = queue_of(database)
    (job,) = await queue.claim(10, share=1, along=50)
    assert len(job.recipients) == 3
    assert not {held, later, cancelled}.intersection(ids(job))
    assert await queue.claim(10, share=1, along=50) == []
    # A host that may be away is asked with one
    await queue.give_back([job])
    await queue.block("x.example", "away", first=0.0, longest=0.0)
    (probe,) = await queue.claim(10, share=5, along=50)
    assert (probe.probe, len(probe.recipients)) == (True, 1)
