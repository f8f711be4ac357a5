"""Transactions on a real server: stored whole or not at all, and over when they are over."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from relaymail.store.database import Database, DatabaseError, Transaction
from tests.conftest import reactor
from tests.store.databases import begin, failure_of, ids, inserting, make_table
from tests.support.waiting import until


async def test_a_transaction_stores_and_returns(database: Database) -> None:
    await make_table(database)
    assert await database.transaction("test.store", inserting(1, 2)) == "stored"
    assert await ids(database) == [1, 2]


async def test_a_transaction_whose_body_raises_is_rolled_back(database: Database) -> None:
    await make_table(database)

    async def body(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO t VALUES (1)")
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await database.transaction("test.store", body)
    assert await ids(database) == []
    assert database.usage.active == 0
    assert await database.transaction("test.again", inserting(1)) == "stored"


async def test_a_refused_statement_rolls_the_transaction_back(database: Database) -> None:
    await make_table(database)
    error = await failure_of(database.transaction("test.store", inserting(1, 1)))
    assert isinstance(error, DatabaseError)
    assert error.sqlstate == "23505"
    assert await ids(database) == []


async def test_a_first_statement_that_is_refused_leaves_no_open_transaction(database: Database) -> None:
    await make_table(database)
    await database.execute("test.insert", "INSERT INTO t VALUES (1)")
    for _ in range(database.usage.maximum + 1):
        assert isinstance(await failure_of(database.transaction("test.store", inserting(1))), DatabaseError)
    assert await database.execute("test.insert", "INSERT INTO t VALUES (2)") == 1
    assert await ids(database) == [1, 2]


async def test_a_swallowed_error_never_passes_for_a_commit(database: Database) -> None:
    await make_table(database)

    async def body(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO t VALUES (1)")
        try:
            await transaction.execute("INSERT INTO t VALUES (1)")
        except DatabaseError:
            pass

    error = await failure_of(database.transaction("test.store", body))
    assert isinstance(error, DatabaseError)
    assert error.sqlstate == "25P02"
    assert await ids(database) == []


async def test_an_error_at_commit_is_certain_and_the_connection_stays(database: Database) -> None:
    await database.execute(
        "test.create", "CREATE TABLE public.t (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    )
    error = await failure_of(database.transaction("test.store", inserting(1, 1)))
    assert type(error) is DatabaseError
    assert error.sqlstate == "23505"
    assert await ids(database) == []


async def test_the_hook_runs_before_the_commit_and_may_stop_it(database: Database) -> None:
    await make_table(database)
    steps: list[str] = []

    async def body(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO t VALUES (1)")
        steps.append("body")

    def stop_here() -> None:
        steps.append("hook")
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        await database.transaction("test.store", body, before_commit=stop_here)
    assert steps == ["body", "hook"]
    assert await ids(database) == []


async def test_a_transaction_is_over_when_its_body_has_returned(database: Database) -> None:
    kept: list[Transaction] = []

    async def body(transaction: Transaction) -> None:
        kept.append(transaction)

    await database.transaction("test.empty", body)
    with pytest.raises(RuntimeError, match="over"):
        await kept[0].query("SELECT 1")


async def test_two_statements_at_once_in_one_transaction_are_refused(database: Database) -> None:
    async def body(transaction: Transaction) -> None:
        first = begin(transaction.query("SELECT pg_sleep(0.05)"))
        with pytest.raises(RuntimeError, match="already running"):
            await transaction.query("SELECT 2")
        assert await first == [("",)]

    await database.transaction("test.both", body)


async def test_a_cancelled_call_gives_its_connection_up(database: Database) -> None:
    slow = begin(database.query("test.slow", "SELECT pg_sleep(30)"))
    await until(reactor, lambda: database.usage.active == 1)
    slow.cancel()
    assert isinstance(await failure_of(slow), CancelledError)
    assert await database.query("test.after", "SELECT 1") == [(1,)]
    assert database.usage.active == 0
