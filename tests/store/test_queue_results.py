"""Results of tries: what is kept of them, what is in doubt, and a database that is away meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from relaymail.store.database import Database, DatabaseError
from tests.store.queued import (
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


async def test_results_of_each_kind(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "ok@x.example", "later@x.example", "no@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    by_name = {r.address.partition("@")[0]: index for index, r in enumerate(job.recipients)}
    results = [
        delivered(job, owes="relayed")[by_name["ok"]],
        deferred(job, owes="delayed", seconds=3.0)[by_name["later"]],
        failed(job, owes="failed")[by_name["no"]],
    ]
    assert await queue.settle(results) == set(ids(job))
    rows = await database.query(
        "test.rows",
        "SELECT recipient, state, attempts, lease_token IS NULL, finished_at IS NOT NULL, last_status,"
        " owed_dsn, warned_at IS NOT NULL, round(extract(epoch FROM due_at - last_at))::int"
        " FROM relaymail.queue ORDER BY n",
    )
    assert rows[0][:8] == ("ok@x.example", "delivered", 1, True, True, "2.0.0", "relayed", False)
    assert rows[1] == ("later@x.example", "queued", 1, True, False, "4.3.0", "delayed", True, 600)
    assert rows[2][:8] == ("no@x.example", "failed", 1, True, True, "5.1.1", "failed", False)
    attempts = await database.query(
        "test.attempts",
        "SELECT recipient, number, outcome, phase, host, address, tls, status, reply,"
        " round(extract(epoch FROM ended_at - started_at))::int FROM relaymail.attempts ORDER BY queue_id",
    )
    place = ("final-dot", "mx.example.org", "192.0.2.25:25", "TLSv1.3")
    assert attempts == [
        ("ok@x.example", 1, "delivered", *place, "2.0.0", "250 2.0.0 Ok: queued as 4711", 0),
        ("later@x.example", 1, "deferred", *place, "4.3.0", "451 4.3.0 Later", 3),
        ("no@x.example", 1, "failed", *place, "5.1.1", "550 5.1.1 No such user", 0),
    ]
    assert await queue.claim(10) == []


async def test_a_deferred_row_comes_again_in_time(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    for attempts in range(3):
        (job,) = await queue.claim(10)
        assert job.recipients[0].attempts == attempts
        await queue.settle(deferred(job, delay=0))
    (job,) = await queue.claim(10)
    await queue.settle(deferred(job, delay=3600))
    assert await queue.claim(10) == []
    numbers = await database.query("test.numbers", "SELECT number FROM relaymail.attempt ORDER BY number")
    assert numbers == [(1,), (2,), (3,), (4,)]


async def test_a_try_that_broke_off_behind_the_final_dot_is_in_doubt(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example", "b@x.example")
    killed, other = queue_of(database, "killed"), queue_of(database, "other")
    (job,) = await killed.claim(10)
    sent = next(r.id for r in job.recipients if r.address == "a@x.example")
    assert await killed.begin_transfer(job, [sent], host="mx", address="192.0.2.1:25", tls="TLSv1.3") == {
        sent
    }
    running = (
        "SELECT outcome, phase, host, tls, possible_duplicate FROM relaymail.attempts WHERE queue_id = %s"
    )
    assert await one(database, running, sent) == ("running", "final-dot", "mx", "TLSv1.3", False)
    await expire(database)
    assert (await one(database, running, sent))[0] == "in doubt"

    (again,) = await other.claim(10)
    doubts = {r.address: (r.in_doubt, r.attempts) for r in again.recipients}
    assert doubts == {"a@x.example": (True, 1), "b@x.example": (False, 0)}
    assert await other.begin_transfer(again, ids(again), host="mx", address="192.0.2.1:25", tls=None)
    assert await killed.settle(delivered(job)) == set()
    await other.settle(delivered(again))
    attempts = await database.query(
        "test.attempts",
        "SELECT recipient, number, outcome, owner, possible_duplicate FROM relaymail.attempts ORDER BY 1, 2",
    )
    assert attempts == [
        ("a@x.example", 1, "in doubt", "killed", False),
        ("a@x.example", 2, "delivered", "other", True),
        ("b@x.example", 1, "delivered", "other", False),
    ]


async def test_a_final_dot_without_a_reply_is_in_doubt_as_well(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.settle(deferred(job, delay=0, in_doubt=True))
    assert await one(database, "SELECT outcome FROM relaymail.attempts") == "in doubt"
    (again,) = await queue.claim(10)
    assert again.recipients[0].in_doubt


async def test_nothing_is_begun_on_a_lease_that_is_over(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10, lease=0)
    assert await queue.begin_transfer(job, ids(job), host="mx", address="a", tls=None) == set()


async def test_a_second_host_may_be_begun_with_in_one_try(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.begin_transfer(job, ids(job), host="mx1", address="a", tls=None)
    await queue.begin_transfer(job, ids(job), host="mx2", address="b", tls=None)
    await queue.settle(delivered(job, host=None))
    assert await one(database, "SELECT number, host, outcome FROM relaymail.attempt") == (
        1,
        "mx2",
        "delivered",
    )


async def test_many_results_share_a_statement(database: Database) -> None:
    statements: list[str] = []
    await fill(database, "x.example", 300)
    queue = queue_of(database)
    await database.execute(
        "test.override",
        "INSERT INTO relaymail.destination (destination, max_recipients) VALUES ('x.example', 1)",
    )
    jobs = await queue.claim(300, share=300)
    assert len(jobs) == 300
    database._observe = lambda name, *_: statements.append(name)
    place: dict[str, Any] = {"host": "mx", "address": "a", "tls": None}
    begun = await gatherResults(
        [Deferred.fromCoroutine(queue.begin_transfer(job, ids(job), **place)) for job in jobs]
    )
    assert begun == [set(ids(job)) for job in jobs]
    settled = await gatherResults([Deferred.fromCoroutine(queue.settle(delivered(job))) for job in jobs])
    assert settled == [set(ids(job)) for job in jobs]
    assert len(statements) <= 20
    assert set((await states(database)).values()) == {"delivered"}


async def test_a_result_that_cannot_be_stored_keeps_no_other_from_it(
    database: Database, tmp_path: Path
) -> None:
    await put(database, tmp_path, "a@x.example")
    await put(database, tmp_path, "b@x.example")
    queue = queue_of(database)
    good, bad = await queue.claim(10)
    outcomes: list[object] = []
    waiting = [
        Deferred.fromCoroutine(queue.settle(delivered(good))),
        Deferred.fromCoroutine(queue.settle(deferred(bad, delay=1e300))),
        Deferred.fromCoroutine(queue.settle(delivered(good))),
    ]
    for one_of in waiting:
        one_of.addBoth(outcomes.append)
        await one_of
    assert outcomes[0] == set(ids(good))
    assert isinstance(getattr(outcomes[1], "value", None), DatabaseError)
    assert outcomes[2] == set()


async def test_what_a_host_said_is_kept_within_bounds(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    reply = "550-5.7.1 \x1b[2Jno\0\ud800\n550 5.7.1 " + "x" * 5000
    await queue.settle([dataclasses.replace(failed(job)[0], status="5.7.1", reply=reply)])
    stored = await one(database, "SELECT last_reply FROM relaymail.queue")
    assert stored.startswith("550-5.7.1 \\x1b[2Jno\N{REPLACEMENT CHARACTER}?\n550 5.7.1 xxx")
    assert len(stored) <= 2000


async def test_results_wait_for_a_database_that_is_away(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    query = database.query
    tries: list[bool] = []

    async def away(name: str, *rest: object, **more: object) -> list[tuple[object, ...]]:
        if name == "queue.settle" and len(tries) < 2:
            tries.append(queue.failing)
            raise DatabaseError("deadlock detected", "40P01")
        return await query(name, *rest, **more)  # type: ignore[arg-type]

    database.query = away  # type: ignore[method-assign]
    assert await queue.settle(delivered(job)) == set(ids(job))
    assert tries == [False, True]
    assert not queue.failing


async def test_a_queue_that_stops_does_not_wait_for_it(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    queue.stop()
    await database.stop()
    with pytest.raises(DatabaseError):
        await queue.settle(delivered(job))
    assert queue.failing
