"""Clients of a database, and what the tests do with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from relaymail.store.database import Database, Transaction

Parameters = dict[str, str]

NewClient = Callable[..., Database]
"""Takes parameters, and options of ``Database``."""


def begin(coroutine: Any) -> Deferred[Any]:
    """Start a coroutine without waiting for it."""
    return Deferred.fromCoroutine(coroutine)


async def failure_of(awaitable: Any) -> BaseException:
    """What ``awaitable`` fails with."""
    try:
        result = await awaitable
    except BaseException as error:
        return error
    raise AssertionError(f"it succeeded with {result!r}")


async def make_table(database: Database) -> None:
    await database.execute("test.create", "CREATE TABLE public.t (id integer PRIMARY KEY)")


async def ids(database: Database) -> list[int]:
    return [row[0] for row in await database.query("test.read", "SELECT id FROM t ORDER BY id")]


def inserting(*values: int) -> Any:
    """A transaction's body that stores ``values``."""

    async def body(transaction: Transaction) -> str:
        for value in values:
            await transaction.execute("INSERT INTO t VALUES (%s)", (value,))
        return "stored"

    return body
