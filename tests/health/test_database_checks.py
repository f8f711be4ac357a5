"""The checks of PostgreSQL, against a real one: running, stopped, frozen, used up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from relaymail.health import HealthCheck, Result, Status
from relaymail.health.checks import connection_pool_check, database_check
from relaymail.store.database import Database, PoolUsage, Transaction
from relaymail.store.errors import DatabaseError
from tests.conftest import reactor
from tests.support.postgres import PostgresServer
from tests.support.waiting import until, until_answered


async def test_a_running_database_is_healthy(database: Database) -> None:
    check = database_check(database)
    assert (check.name, check.tags) == ("database", ("infrastructure",))
    assert await check.run() == Result(Status.HEALTHY, "PostgreSQL connection is healthy")


@pytest.fixture
def running(postgres: PostgresServer, database: Database) -> Iterator[PostgresServer]:
    """The server; it runs again after the test, and before the database is dropped."""
    yield postgres
    postgres.thaw()
    if postgres.stopped:
        postgres.start()


async def until_healthy(check: HealthCheck) -> None:
    async def healthy() -> bool:
        return (await check.run()).status is Status.HEALTHY

    await until_answered(reactor, healthy)


async def test_a_stopped_database_is_unhealthy_until_it_is_back(
    running: PostgresServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.health.checks.database.PING_LIMIT", 1.0)
    check = database_check(database)
    running.stop()
    assert await check.run() == Result(Status.UNHEALTHY, "PostgreSQL cannot be reached or does not answer")
    running.start()
    await until_healthy(check)


async def test_a_frozen_database_is_unhealthy_in_time_and_healthy_when_it_goes_on(
    running: PostgresServer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.health.checks.database.PING_LIMIT", 1.0)
    check = database_check(database)
    running.freeze()
    assert (await check.run()).status is Status.UNHEALTHY
    running.thaw()
    await until_healthy(check)


async def test_an_error_of_the_server_is_told_by_its_code_only(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(limit: float) -> float:
        raise DatabaseError("password for user secret", "57P03")

    monkeypatch.setattr(database, "ping", refuse)
    assert await database_check(database).run() == Result(
        Status.UNHEALTHY, "PostgreSQL answered with an error (57P03)"
    )


@dataclass
class Pool:
    """A pool whose use the test decides."""

    active: int
    maximum: int = 100

    @property
    def usage(self) -> PoolUsage:
        return PoolUsage(self.active, self.maximum, self.maximum, 0)


def found(pool: Any, clock: Clock) -> Result:
    running = Deferred.fromCoroutine(_run(pool, clock))
    while not running.called:
        clock.advance(0.1)
    result = running.result
    assert isinstance(result, Result)
    return result


async def _run(pool: Any, clock: Clock) -> Result:
    return await connection_pool_check(pool, clock=clock).run()


@pytest.mark.parametrize(
    ("active", "status"),
    [
        (0, Status.HEALTHY),
        (80, Status.HEALTHY),
        (81, Status.DEGRADED),
        (95, Status.DEGRADED),
        (96, Status.UNHEALTHY),
        (100, Status.UNHEALTHY),
    ],
)
def test_the_pool_is_judged_by_its_use(active: int, status: Status) -> None:
    clock = Clock()
    result = found(Pool(active), clock)
    assert result == Result(
        status,
        f"{active} of 100 database connections in use",
        {"activeConnections": active, "maxConnections": 100, "usedPercent": float(active)},
    )
    assert clock.seconds() < 1


def test_a_pool_that_is_full_for_a_moment_is_healthy() -> None:
    clock, pool = Clock(), Pool(100)
    running = Deferred.fromCoroutine(_run(pool, clock))
    clock.advance(0.1)
    pool.active = 50
    clock.advance(0.1)
    assert isinstance(running.result, Result)
    assert running.result.status is Status.HEALTHY
    assert running.result.data["usedPercent"] == 50.0


async def test_a_real_pool_that_is_used_up_is_unhealthy(database: Database) -> None:
    check = connection_pool_check(database, clock=reactor)
    assert (check.name, check.tags) == ("connection-pool", ("database",))
    holding = []

    async def hold(transaction: Transaction) -> None:
        await transaction.query("SELECT 1")
        waiter: Deferred[None] = Deferred()
        holding.append(waiter)
        await waiter

    busy = [Deferred.fromCoroutine(database.transaction("test.hold", hold)) for _ in range(4)]
    await until(reactor, lambda: len(holding) == 4)
    result = await check.run()
    assert result.status is Status.UNHEALTHY
    assert result.data == {"activeConnections": 4, "maxConnections": 4, "usedPercent": 100.0}
    for waiter in holding:
        waiter.callback(None)
    for transaction in busy:
        await transaction
    assert (await check.run()).status is Status.HEALTHY
