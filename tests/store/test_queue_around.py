"""Around the queue: counts, hints, and addresses that are suppressed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from relaymail.store import queue_hint
from relaymail.store.database import Database, DatabaseUnavailable
from relaymail.store.queue_counts import QueueCounts, queue_counts
from relaymail.store.queue_hint import QueueHint
from relaymail.store.suppression import CACHE_SECONDS, Suppressions
from tests.conftest import reactor
from tests.store.queued import deferred, failed, fill, put, queue_of
from tests.support.waiting import until


async def test_an_empty_queue_counts_nothing(database: Database) -> None:
    assert await queue_counts(database) == QueueCounts(0, 0, 0, 0, 0, 0, 0, 0.0)


async def test_the_queue_is_counted(database: Database, tmp_path: Path) -> None:
    await fill(database, "x.example", 5)
    await fill(database, "y.example", 4)
    queue = queue_of(database)
    await queue.claim(10, only=["x.example"])
    await queue.block("y.example", "refused")
    for change, n, destination in (
        ("due_at = now() - interval '11 minutes'", 1, "x"),
        ("due_at = now() - interval '9 minutes'", 2, "x"),
        ("attempts = 3", 3, "x"),
        ("attempts = 4", 4, "x"),
        ("state = 'held'", 1, "y"),
        ("state = 'failed', owed_dsn = 'failed'", 2, "y"),
        ("queued_at = now() - interval '1 hour'", 3, "y"),
    ):
        await database.execute(
            "test.change",
            f"UPDATE relaymail.queue SET {change} WHERE n = %s AND destination = %s",
            (n, f"{destination}.example"),
        )
    counts = await queue_counts(database)
    assert dataclasses.astuple(counts)[:-1] == (7, 1, 3, 1, 2, 1, 1)
    assert 3600 <= counts.oldest_seconds < 3660


# --- Hints


class Ear:
    """Takes the place of the database."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.failure: Exception | None = None

    async def execute(self, name: str, sql: str, **more: object) -> int:
        self.sent.append(sql)
        if self.failure is not None:
            raise self.failure
        return 0


def test_hints_are_joined() -> None:
    ear, clock = Ear(), Clock()
    hint = QueueHint(ear, reactor=clock)  # type: ignore[arg-type]
    for _ in range(5):
        hint()
    assert ear.sent == ["NOTIFY relaymail_queue"]
    clock.advance(queue_hint.PACE)
    assert len(ear.sent) == 2
    clock.advance(queue_hint.PACE)
    assert len(ear.sent) == 2
    hint()
    assert len(ear.sent) == 3
    hint()
    hint.stop()
    clock.advance(1)
    assert len(ear.sent) == 3
    assert not clock.getDelayedCalls()


def test_a_hint_that_cannot_be_sent_is_no_error() -> None:
    ear, clock = Ear(), Clock()
    ear.failure = DatabaseUnavailable("away")
    hint = QueueHint(ear, reactor=clock)  # type: ignore[arg-type]
    hint()
    clock.advance(queue_hint.PACE)
    hint()
    assert len(ear.sent) == 2
    hint.stop()


async def test_a_hint_arrives(database: Database) -> None:
    heard: list[str] = []
    database.listen("relaymail_queue", heard.append)
    await until(reactor, lambda: heard == [""])
    hint = QueueHint(database, reactor=reactor)
    hint()
    await until(reactor, lambda: heard == ["", ""])
    hint.stop()


# --- Suppression


@pytest.mark.parametrize("status", ["5.1.1", "5.1.2", "5.1.10"])
async def test_an_address_that_does_not_exist_is_suppressed(
    database: Database, tmp_path: Path, status: str
) -> None:
    message = await put(database, tmp_path, "Anna@x.example")
    await put(database, tmp_path, "anna@X.example".lower())
    queue = queue_of(database)
    results = [result for job in await queue.claim(10) for result in failed(job, status)]
    await queue.settle(results)
    clock = Clock()
    found = await Suppressions(database, clock=clock).find("ANNA@x.example")
    assert found is not None
    assert (found.address, found.status, found.reply) == (
        "anna@x.example",
        status,
        f"550 {status} No such user",
    )
    assert found.message_id is not None
    assert 29.9 < (found.expires_at - found.since).total_seconds() / 86400 < 30.1
    assert message


@pytest.mark.parametrize("status", ["5.7.1", "5.2.2", "5.1.3", "5.4.4", "4.1.1"])
async def test_no_other_failure_suppresses(database: Database, tmp_path: Path, status: str) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.settle(failed(job, status))
    assert await Suppressions(database, clock=Clock()).find("a@x.example") is None


async def test_a_deferral_does_not_suppress(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@x.example")
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    await queue.settle([dataclasses.replace(deferred(job)[0], status="5.1.1")])
    assert await Suppressions(database, clock=Clock()).find("a@x.example") is None


async def test_look_ups_are_joined_and_remembered(database: Database) -> None:
    asked: list[str] = []
    database._observe = lambda name, *_: asked.append(name)
    clock = Clock()
    suppressions, other = Suppressions(database, clock=clock), Suppressions(database, clock=clock)
    await suppressions.add("a@x.example", "gone")
    asked.clear()
    found = await gatherResults(
        [Deferred.fromCoroutine(suppressions.find(f"{name}@x.example")) for name in "abcabc"]
    )
    assert [entry and entry.address for entry in found] == ["a@x.example", None, None] * 2
    assert len(asked) == 2
    assert await suppressions.find("A@x.example")
    assert await suppressions.find("b@x.example") is None
    assert len(asked) == 2
    # What another process changes is seen a little later
    await other.remove(["a@x.example"])
    assert await suppressions.find("a@x.example")
    clock.advance(CACHE_SECONDS)
    assert await suppressions.find("a@x.example") is None


async def test_the_list_is_kept_by_hand(database: Database) -> None:
    suppressions = Suppressions(database, clock=Clock())
    await suppressions.add("A@x.example", "has left", life=3600)
    await suppressions.add("b@y.example", "over", life=-1)
    await suppressions.add("c@y.example", "has moved")
    assert await suppressions.find("b@y.example") is None
    assert [e.address for e in await suppressions.list_entries()] == ["c@y.example", "a@x.example"]
    assert [e.reply for e in await suppressions.list_entries("X.EXAMPLE")] == ["has left"]
    assert await suppressions.remove(["a@X.example", "nobody@x.example"]) == 1
    assert await suppressions.find("a@x.example") is None


async def test_what_no_column_takes_is_not_suppressed(database: Database) -> None:
    suppressions = Suppressions(database, clock=Clock())
    assert await suppressions.find("\0@x.example") is None
    assert await suppressions.find("a" * 400) is None
