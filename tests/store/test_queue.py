"""The queue on a real PostgreSQL: nothing is lost, nothing is had by two, the late change nothing."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults

from relaymail.message.envelope import Envelope, EnvelopeRecipient
from relaymail.store.database import Database, DatabaseError, Transaction
from relaymail.store.queue import Job
from relaymail.store.rows import Rows
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
from tests.store.records import record


class Crash(Exception):
    """Rolls a transaction back, as the end of a process does."""


# --- Becoming queued


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


# --- Claims


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


# --- Whose turn it is


async def test_priority_goes_first(database: Database) -> None:
    await fill(database, "low.example", 3, priority=-9)
    await fill(database, "usual.example", 3)
    await fill(database, "urgent.example", 3, priority=9)
    await fill(database, "usual.example", 3, priority=5)
    queue = queue_of(database)
    claimed = [(job.destination, job.priority) for n in range(4) for job in await queue.claim(3)]
    assert claimed == [("urgent.example", 9), ("usual.example", 5), ("usual.example", 0), ("low.example", -9)]


async def test_a_destination_with_very_many_rows_takes_its_turn(database: Database) -> None:
    await fill(database, "huge.example", 20_000)
    queue = queue_of(database)
    await queue.claim(1)
    for n in range(30):
        await fill(database, f"d{n:02}.example", 3)
    shares = [[job.destination for job in await queue.claim(20, share=5)] for _ in range(12)]
    assert sum(turn.count("huge.example") for turn in shares) <= 12
    assert {d for turn in shares for d in turn} == {"huge.example", *(f"d{n:02}.example" for n in range(30))}
    # Nothing else is left: now it has all
    (job,) = await queue.claim(20, share=20)
    assert job.destination == "huge.example"
    assert len(job.recipients) == 20


async def test_many_destinations_with_one_row_each_fill_a_claim(database: Database) -> None:
    for n in range(60):
        await fill(database, f"d{n:02}.example", 1)
    assert len(ids(*await queue_of(database).claim(50, share=10))) == 50


async def test_busy_destinations_are_passed_over_and_only_those_wanted_are_looked_at(
    database: Database,
) -> None:
    for name in ("a", "b", "c"):
        await fill(database, f"{name}.example", 2)
    queue = queue_of(database)
    assert {job.destination for job in await queue.claim(2, share=1, busy=["a.example"])} == {
        "b.example",
        "c.example",
    }
    assert [job.destination for job in await queue.claim(9, only=["a.example", "none.example"])] == [
        "a.example"
    ]


async def test_a_blocked_destination_keeps_its_rows_and_others_do_not_wait(database: Database) -> None:
    await fill(database, "dead.example", 500)
    await fill(database, "dead.example", 5, priority=3)
    queue = queue_of(database)
    assert 59 < await queue.block("dead.example", "connection refused") <= 60
    await fill(database, "x.example", 5)
    assert {job.destination for job in await queue.claim(20)} == {"x.example"}
    lanes = await database.query(
        "test.lanes",
        "SELECT l.due_at = b.blocked_until FROM relaymail.lane l"
        " JOIN relaymail.blocked b USING (destination)",
    )
    assert lanes == [(True,), (True,)]
    # Rows that come meanwhile wait as well, and what was under way and fails now does not count
    await fill(database, "dead.example", 1)
    assert await queue.claim(20) == []
    await queue.block("dead.example", "timed out")
    assert await one(database, "SELECT failures, reason FROM relaymail.blocked") == (1, "timed out")


async def test_a_block_that_is_over_lets_one_row_ask(database: Database) -> None:
    await fill(database, "dead.example", 50)
    await fill(database, "dead.example", 5, priority=3)
    queue = queue_of(database)
    await queue.block("dead.example", "connection refused", first=0)
    (probe,) = await queue.claim(20)
    assert probe.probe
    assert len(probe.recipients) == 1
    # Until it has an answer, nobody else asks
    assert await queue.claim(20) == []
    # No answer again: twice as long, up to the longest
    assert 119 < await queue.block("dead.example", "refused", first=60, longest=300) <= 120
    for seconds in (240, 300, 300):
        await database.execute("test.over", "UPDATE relaymail.blocked SET blocked_until = now()")
        assert seconds - 1 < await queue.block("dead.example", "refused", first=60, longest=300) <= seconds
    # An answer: all may go
    assert await queue.unblock("dead.example")
    assert not await queue.unblock("dead.example")
    assert len(ids(*await queue.claim(20, share=20))) == 20


async def test_a_probe_that_dies_is_followed_by_another(database: Database) -> None:
    await fill(database, "dead.example", 5)
    queue = queue_of(database)
    await queue.block("dead.example", "refused", first=0)
    (first,) = await queue.claim(20, lease=0)
    (second,) = await queue.claim(20, lease=0)
    assert first.probe
    assert second.probe


async def test_rows_whose_life_is_over_are_found_behind_a_block(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "old@dead.example")
    await put(database, tmp_path, "young@dead.example")
    await put(database, tmp_path, "bounce@dead.example", sender="")
    await put(database, tmp_path, "young-bounce@dead.example", sender="")
    await put(database, tmp_path, "held@dead.example")
    await put(database, tmp_path, "leased@x.example")
    queue = queue_of(database)
    await queue.block("dead.example", "refused")
    assert addresses(await queue.claim(20)) == ["leased@x.example"]
    await database.execute(
        "test.age",
        """
        UPDATE relaymail.queue SET queued_at = now() - interval '6 days'
         WHERE recipient IN ('old@dead.example', 'held@dead.example', 'leased@x.example');
        UPDATE relaymail.queue SET queued_at = now() - interval '2 days'
         WHERE recipient IN ('young@dead.example', 'bounce@dead.example');
        SELECT relaymail.queue_hold(array_agg(id)) FROM relaymail.queue WHERE recipient = 'held@dead.example'
        """,
    )
    expired = await queue.claim_expired(10, life=5 * 86400, null_sender_life=86400)
    assert addresses(expired) == ["bounce@dead.example", "old@dead.example"]
    assert await queue.claim_expired(10, life=5 * 86400, null_sender_life=86400) == []


async def test_a_row_without_a_lane_is_found_again(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    await database.execute("test.lose", "DELETE FROM relaymail.arrival")
    queue = queue_of(database)
    assert await queue.claim(10) == []
    await queue.repair()
    assert addresses(await queue.claim(10)) == ["a@x.example"]


# --- Results


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
