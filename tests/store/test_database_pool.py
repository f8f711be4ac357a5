"""Calls that wait for a connection, and what a client that is stopped leaves behind."""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults

from relaymail.store.connection import Connection
from relaymail.store.database import Database, DatabaseUnavailable, Transaction
from tests.conftest import reactor
from tests.store.databases import NewClient, Parameters, begin, failure_of
from tests.support.postgres import PostgresServer
from tests.support.waiting import pause, until


async def test_calls_wait_in_line_for_a_connection_and_no_longer_than_their_deadline(
    database_parameters: Parameters, new_client: NewClient
) -> None:
    database = new_client(database_parameters, size=1)
    await database.ping()
    order: list[int] = []
    held: Deferred[None] = Deferred()

    async def hold(transaction: Transaction) -> None:
        await transaction.query("SELECT 1")
        await held

    slow = begin(database.transaction("test.slow", hold))
    late = begin(failure_of(database.query("test.late", "SELECT 1", timeout=0.1)))

    async def numbered(number: int) -> None:
        await database.query("test.next", "SELECT 1")
        order.append(number)

    waiting = [begin(numbered(number)) for number in range(3)]
    assert database.usage.waiting == 4
    assert (database.usage.active, database.usage.open, database.usage.maximum) == (1, 1, 1)
    assert type(await late) is DatabaseUnavailable
    assert not slow.called
    held.callback(None)
    await slow
    await gatherResults(waiting)
    assert order == [0, 1, 2]
    assert database.usage.waiting == 0


async def test_a_thousand_calls_can_wait_for_one_connection(
    database_parameters: Parameters, new_client: NewClient
) -> None:
    database = new_client(database_parameters, size=1)
    calls = [begin(database.query("test.many", "SELECT %s", (number,))) for number in range(1000)]
    assert await gatherResults(calls) == [[(number,)] for number in range(1000)]


async def test_ping_measures_a_round_trip(database: Database) -> None:
    assert 0 < await database.ping() < 5


async def test_after_stop_nothing_is_left(database_parameters: Parameters, postgres: PostgresServer) -> None:
    before = set(reactor.getDelayedCalls())
    others = set(reactor.getReaders())
    database = Database({**database_parameters, "application_name": "leftover"}, reactor=reactor, size=1)
    database.start()
    database.listen("somewhere", lambda payload: None)
    running_call = begin(failure_of(database.query("test.slow", "SELECT pg_sleep(30)")))
    waiting_call = begin(failure_of(database.query("test.wait", "SELECT 1")))
    await until(reactor, lambda: database.usage.active == 1 and database.usage.waiting == 1)
    await database.stop()
    assert isinstance(await running_call, DatabaseUnavailable)
    assert isinstance(await waiting_call, DatabaseUnavailable)
    assert isinstance(await failure_of(database.query("test.after", "SELECT 1")), DatabaseUnavailable)
    # What was answered may be handed over in the next turn of the reactor
    await until(reactor, lambda: {call for call in reactor.getDelayedCalls() if call.active()} <= before)
    left = set(reactor.getReaders()) - others
    assert not any(isinstance(reader, Connection) for reader in left)
    sql = "SELECT FROM pg_stat_activity WHERE application_name = 'leftover' AND state <> 'active'"
    await until(reactor, lambda: not postgres.sql("postgres", sql))


async def test_stopping_while_connecting_leaves_nothing(
    database_parameters: Parameters, running: PostgresServer
) -> None:
    before = set(reactor.getDelayedCalls())
    running.freeze()
    database = Database(database_parameters, reactor=reactor)
    database.start()
    call = begin(failure_of(database.query("test.wait", "SELECT 1")))
    await pause(reactor, 0.05)
    await database.stop()
    assert isinstance(await call, DatabaseUnavailable)
    # What was answered may be handed over in the next turn of the reactor
    await until(reactor, lambda: {call for call in reactor.getDelayedCalls() if call.active()} <= before)
