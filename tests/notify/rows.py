"""Rows of the outbox, written and read as tests need them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from relaymail.store.database import Database
from tests.conftest import reactor
from tests.support import waiting


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


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` is true."""
    await waiting.until(reactor, condition)


async def until_settled(database: Database, state: str = "sent", of: int | None = None) -> None:
    """Wait until every row, or so many ``of`` them, are in this state."""

    async def settled() -> bool:
        found = await states(database)
        return found.count(state) >= (len(found) if of is None else of)

    await waiting.until_answered(reactor, settled)


async def until_deferred(database: Database, count: int) -> None:
    """Wait until so many attempts have failed and were written down."""

    async def deferred() -> bool:
        return sum(int(attempts) for (attempts,) in await rows(database, "attempts")) >= count

    await waiting.until_answered(reactor, deferred)


async def until_free(database: Database) -> None:
    """Wait until nobody has claimed any row."""

    async def free() -> bool:
        return await rows(database, "lease_token") == [(None,)] * len(await states(database))

    await waiting.until_answered(reactor, free)
