"""What is looked at now and then."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from relaymail.health.activity import DEPTH_INTERVAL, LAG_INTERVAL, Activity, outbox_depth, queue_depth
from relaymail.store.database import Database
from relaymail.store.errors import DatabaseUnavailable
from relaymail.telemetry import Metrics
from relaymail.telemetry.instruments import Buckets
from tests.conftest import reactor
from tests.store.queued import fill, queue_of
from tests.support.waiting import until


def lag(metrics: Metrics) -> tuple[int, float]:
    [buckets] = metrics.lag.read().points.values()
    assert isinstance(buckets, Buckets)
    return sum(buckets.counts), buckets.total


def test_a_late_reactor_is_noticed_by_how_late_it_is() -> None:
    clock, metrics = Clock(), Metrics()
    activity = Activity(metrics, [], reactor=clock)
    activity.start()
    for _ in range(10):
        clock.advance(LAG_INTERVAL)
    assert lag(metrics) == (11, 0.0)
    clock.advance(LAG_INTERVAL + 0.7)
    assert lag(metrics)[1] == pytest.approx(0.7)
    clock.advance(0.05)
    assert lag(metrics)[0] == 13, "it goes on in its old rhythm"
    assert lag(metrics)[1] == pytest.approx(0.7)
    activity.stop()
    clock.advance(10)
    assert lag(metrics)[0] == 13


def test_messages_are_counted_over_time() -> None:
    clock, metrics = Clock(), Metrics()
    activity = Activity(metrics, [], reactor=clock)
    activity.start()
    for _ in range(12):
        clock.advance(5)
        metrics.message_received("mx", 100)
    clock.advance(5)
    assert activity.messages.per_minute() == pytest.approx(12, abs=1.1)
    activity.stop()


def test_a_database_that_is_away_stops_nothing() -> None:
    clock, looked = Clock(), []

    async def fail() -> None:
        looked.append("fail")
        raise DatabaseUnavailable("away")

    async def look() -> None:
        looked.append("look")

    activity = Activity(Metrics(), [fail, look], reactor=clock)
    activity.start()
    clock.advance(DEPTH_INTERVAL)
    assert looked == ["fail", "look"] * 2
    activity.stop()


def test_what_waits_is_looked_at_as_soon_as_the_database_is_ready() -> None:
    clock, looked = Clock(), []

    async def look() -> None:
        looked.append(clock.seconds())
        if clock.seconds() == 0:
            raise DatabaseUnavailable("away")

    activity = Activity(Metrics(), [look], reactor=clock)
    activity.start()
    clock.advance(1)
    activity.settled()
    assert looked == [0, 1]
    activity.stop()


async def test_what_waits_in_a_real_outbox_is_counted(database: Database) -> None:
    metrics = Metrics()
    activity = Activity(metrics, [outbox_depth(database, metrics)], reactor=reactor)
    activity.start()
    await until(reactor, lambda: metrics.outbox.get(("pending",)) is not None)
    activity.stop()
    assert metrics.outbox.read().points == {("pending",): 0, ("due",): 0, ("dead",): 0}
    assert metrics.outbox_age.get() == 0


async def test_what_waits_in_a_real_queue_is_counted(database: Database) -> None:
    await fill(database, "x.example", 5)
    await fill(database, "y.example", 4)
    await fill(database, "z.example", 3)
    queue = queue_of(database)
    await queue.claim(2, only=["x.example"])
    await queue.block("z.example", "refused")
    for change, n, destination in (
        ("due_at = now() - interval '2 minutes'", 1, "y.example"),
        ("due_at = now() - interval '1 hour'", 1, "z.example"),
        ("due_at = now() + interval '1 hour'", 2, "y.example"),
        ("state = 'held'", 3, "y.example"),
    ):
        await database.execute(
            "test.change",
            f"UPDATE relaymail.queue SET {change} WHERE n = %s AND destination = %s",
            (n, destination),
        )
    metrics = Metrics()
    await queue_depth(database, metrics)()
    assert metrics.queue.read().points == {
        ("pending",): 11,
        ("due",): 3 + 2,
        ("sending",): 2,
        ("stalled",): 0,
        ("held",): 1,
    }, "what is for a destination that is left alone for a while is not due"
    assert metrics.queue_age.get() == pytest.approx(120, abs=20)
