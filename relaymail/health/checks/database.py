"""Checks of PostgreSQL: is it there, and are its connections used up."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import deferLater

from relaymail.health.result import HealthCheck, Result, Status
from relaymail.store.database import Database
from relaymail.store.errors import DatabaseError, DatabaseUnavailable

PING_LIMIT = 4.5
"""Seconds for the round trip: less than the check has, so that it is the check that says what is wrong."""
DEGRADED_ABOVE = 80.0
UNHEALTHY_ABOVE = 95.0
"""Percent of the connections in use."""
SAMPLES = 6
SAMPLE_INTERVAL = 0.1
"""Seconds between samples. A host under load uses every connection now and then for some milliseconds, which
is what they are for; only where none of the samples finds a free one are they used up."""


def database_check(database: Database) -> HealthCheck:
    """A round trip to PostgreSQL on the pool that stores mail."""

    async def run() -> Result:
        try:
            await database.ping(PING_LIMIT)
        except DatabaseUnavailable:
            return Result(Status.UNHEALTHY, "PostgreSQL cannot be reached or does not answer")
        except DatabaseError as error:
            code = f" ({error.sqlstate})" if error.sqlstate else ""
            return Result(Status.UNHEALTHY, f"PostgreSQL answered with an error{code}")
        return Result(Status.HEALTHY, "PostgreSQL connection is healthy")

    return HealthCheck("database", ("infrastructure",), run)


def connection_pool_check(database: Database, *, clock: Any) -> HealthCheck:
    """How many of the pool's connections are in use, at the least busy of some moments."""

    async def run() -> Result:
        least = database.usage
        for _ in range(SAMPLES - 1):
            if _percent(least.active, least.maximum) <= DEGRADED_ABOVE:
                break
            await deferLater(clock, SAMPLE_INTERVAL)
            now = database.usage
            if now.active < least.active:
                least = now
        used = _percent(least.active, least.maximum)
        status = Status.HEALTHY
        if used > DEGRADED_ABOVE:
            status = Status.UNHEALTHY if used > UNHEALTHY_ABOVE else Status.DEGRADED
        return Result(
            status,
            f"{least.active} of {least.maximum} database connections in use",
            {
                "activeConnections": least.active,
                "maxConnections": least.maximum,
                "usedPercent": round(used, 2),
            },
        )

    return HealthCheck("connection-pool", ("database",), run)


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole
