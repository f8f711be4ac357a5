"""Whose turn it is: priorities, fair shares, blocked destinations, and rows that nobody looks for."""

from __future__ import annotations

from pathlib import Path

from relaymail.store.database import Database
from tests.store.queued import (
    addresses,
    fill,
    ids,
    one,
    put,
    queue_of,
)


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
