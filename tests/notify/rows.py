"""Rows of the outbox, written and read as tests need them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater

from relaymail.store.database import Database
from tests.conftest import reactor


async def put(database: Database, *payloads: str) -> list[uuid.UUID]:
    """Write one row for each payload. Returns their message ids."""
    messages = [uuid.uuid4() for _ in payloads]
    await database.execute(
        "test.put",
        "INSERT INTO relaymail.outbox (message_id, email_id, payload)"
        " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::json[])",
        (messages, [uuid.uuid4() for _ in payloads], list(payloads)),
    )
    return messages


async def rows(database: Database, columns: str) -> list[tuple[Any, ...]]:
    """These columns of the whole outbox, in the order of the ids."""
    return await database.query("test.rows", f"SELECT {columns} FROM relaymail.outbox ORDER BY id")


async def states(database: Database) -> list[str]:
    """The state of each row."""
    return [state for (state,) in await rows(database, "state")]


async def pass_time(database: Database, seconds: float) -> None:
    """Let time pass for the outbox: everything in it was so much longer ago."""
    await database.execute(
        "test.pass_time",
        "UPDATE relaymail.outbox SET created_at = created_at - d, due_at = due_at - d,"
        " lease_until = lease_until - d, retried_at = retried_at - d, finished_at = finished_at - d"
        " FROM (SELECT %s * interval '1 second' AS d) AS by",
        (seconds,),
    )


async def until(condition: Callable[[], object], limit: float = 10.0) -> None:
    """Wait until ``condition`` is true; it fails the test after ``limit`` seconds."""
    deadline = reactor.seconds() + limit
    while not condition():
        assert reactor.seconds() < deadline, "what was waited for did not happen"
        await deferLater(reactor, 0.01)


async def until_settled(
    database: Database, state: str = "sent", limit: float = 10.0, of: int | None = None
) -> None:
    """Wait until every row, or so many ``of`` them, are in this state."""
    deadline = reactor.seconds() + limit
    while True:
        found = await states(database)
        if found.count(state) >= (len(found) if of is None else of):
            return
        assert reactor.seconds() < deadline, await rows(database, "state, attempts, last_error")
        await deferLater(reactor, 0.02)


async def until_deferred(database: Database, count: int, limit: float = 10.0) -> None:
    """Wait until so many attempts have failed and were written down."""
    deadline = reactor.seconds() + limit
    while sum(attempts for (attempts,) in await rows(database, "attempts")) < count:
        assert reactor.seconds() < deadline, await rows(database, "state, attempts, last_error")
        await deferLater(reactor, 0.02)
