"""The database client against a real server that restarts, freezes and falls silent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, capturedLogs

from relaymail.store.connection import Connection
from relaymail.store.database import CommitUnknown, Database, DatabaseError, DatabaseUnavailable, Transaction
from tests.conftest import reactor, run_on_reactor
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.proxy import CuttingProxy
from tests.support.waiting import pause, until

Parameters = dict[str, str]


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


@pytest.fixture
def clients() -> Iterator[list[Database]]:
    """Clients put in here are stopped after the test."""
    made: list[Database] = []
    yield made

    async def stop() -> None:
        for client in made:
            await client.stop()

    run_on_reactor(stop())


@pytest.fixture
def running(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The session's server for a test that disturbs it; it runs again afterwards."""
    yield postgres
    postgres.thaw()
    if postgres.stopped:
        postgres.start()


@pytest.fixture
def proxy(postgres: PostgresServer, tmp_path: Path) -> Iterator[CuttingProxy]:
    """In front of the session's server."""

    async def make() -> CuttingProxy:
        return CuttingProxy(reactor, postgres.sockets, tmp_path)

    made = run_on_reactor(make())
    yield made
    run_on_reactor(made.close())


@pytest.fixture
def behind_proxy(proxy: CuttingProxy, database_parameters: Parameters, clients: list[Database]) -> Database:
    """A client whose connections can be cut."""
    client = Database(
        {**database_parameters, "host": str(proxy.folder)}, reactor=reactor, size=2, statement_timeout=5.0
    )
    clients.append(client)
    return client


# Values and errors


async def test_values_come_back_as_python_types(database: Database) -> None:
    key = uuid.uuid4()
    rows = await database.query(
        "test.types",
        "SELECT %s::uuid, %s::bytea, %s::uuid[], '{\"a\": 1}'::json, now() > 'epoch'",
        (key, b"\0\xff\\x", [key]),
    )
    assert rows == [(key, b"\0\xff\\x", [key], {"a": 1}, True)]


async def test_null_bytea_comes_back_as_none(database: Database) -> None:
    assert await database.query("test.null", "SELECT NULL::bytea") == [(None,)]


async def test_a_percent_sign_needs_no_doubling_without_parameters(database: Database) -> None:
    assert await database.query("test.percent", "SELECT 'a' LIKE 'a%', '%%'") == [(True, "%%")]


async def test_execute_tells_how_many_rows_it_touched(database: Database) -> None:
    await make_table(database)
    assert await database.execute("test.insert", "INSERT INTO t SELECT generate_series(1, 3)") == 3
    assert await database.execute("test.delete", "DELETE FROM t WHERE id > %s", (1,)) == 2


async def test_the_session_is_set_up_for_mail(database: Database) -> None:
    rows = await database.query(
        "test.session",
        "SELECT current_setting('synchronous_commit'), current_setting('timezone'),"
        " current_setting('client_encoding'), current_setting('statement_timeout'),"
        " current_setting('application_name')",
    )
    assert rows == [("on", "UTC", "UTF8", "30s", "relaymail")]


async def test_an_error_has_its_sqlstate_and_no_value(database: Database) -> None:
    secret = "a secret in the statement"
    error = await failure_of(database.query("test.cast", "SELECT %s::integer", (secret,)))
    assert type(error) is DatabaseError
    assert error.sqlstate == "22P02"
    assert "secret" not in str(error)
    error = await failure_of(database.query("test.missing", "SELECT * FROM nowhere"))
    assert isinstance(error, DatabaseError)
    assert error.sqlstate == "42P01"
    assert "nowhere" in str(error)


@pytest.mark.parametrize("text", ["a\0b", "lone \ud800 surrogate"])
async def test_text_the_server_cannot_take_is_a_data_error(database: Database, text: str) -> None:
    error = await failure_of(database.query("test.text", "SELECT %s", (text,)))
    assert isinstance(error, DatabaseError)
    assert error.sqlstate == "22021"
    assert await database.query("test.after", "SELECT 1") == [(1,)]
    assert database.usage.active == 0


async def test_a_wrong_number_of_parameters_costs_no_connection(database: Database) -> None:
    for _ in range(10):
        with pytest.raises((IndexError, TypeError)):
            await database.query("test.wrong", "SELECT %s, %s", (1,))
    assert database.usage.active == 0
    assert await database.query("test.after", "SELECT 1") == [(1,)]


async def test_each_call_is_observed_by_its_name(
    database_parameters: Parameters, clients: list[Database]
) -> None:
    seen: list[tuple[str, bool, BaseException | None]] = []
    database = Database(
        database_parameters,
        reactor=reactor,
        observe=lambda name, seconds, failure: seen.append((name, seconds >= 0, failure)),
    )
    clients.append(database)
    database.start()
    await make_table(database)
    await database.transaction("test.store", inserting(1, 2))
    error = await failure_of(database.query("test.bad", "SELEC"))
    assert seen == [("test.create", True, None), ("test.store", True, None), ("test.bad", True, error)]


async def test_large_statements_arrive_whole(database: Database) -> None:
    content = bytes(range(256)) * 16 * 1024
    rows = await database.query("test.large", "SELECT %s::bytea", (content,))
    assert rows == [(content,)]


# Transactions


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


# Connections that are lost


async def test_loss_before_commit_is_sent_means_not_stored(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    proxy.cut_before = b"(2)"
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1, 2)))
    assert proxy.cuts == 1
    assert type(error) is DatabaseUnavailable
    assert await ids(behind_proxy) == []


async def test_a_lost_commit_that_the_server_did_is_unknown(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    proxy.cut_after = b"COMMIT"
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1)))
    assert proxy.cuts == 1
    assert type(error) is CommitUnknown
    assert await ids(behind_proxy) == [1]


async def test_a_lost_commit_that_the_server_never_saw_is_unknown_too(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    proxy.cut_before = b"COMMIT"
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1)))
    assert proxy.cuts == 1
    assert type(error) is CommitUnknown
    assert await ids(behind_proxy) == []


async def test_a_commit_without_an_answer_is_unknown_at_the_deadline(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    proxy.silent_after = b"COMMIT"
    # Long enough for a busy machine to come as far as the COMMIT
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1), timeout=2.0))
    assert type(error) is CommitUnknown
    assert await ids(behind_proxy) == [1]


async def test_the_first_statement_of_a_transaction_is_sent_again_on_another_connection(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    proxy.cut_after = b"BEGIN"
    assert await behind_proxy.transaction("test.store", inserting(1, 2)) == "stored"
    assert proxy.cuts == 1
    assert await ids(behind_proxy) == [1, 2]


async def test_a_select_is_sent_again_and_a_write_is_not(behind_proxy: Database, proxy: CuttingProxy) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    proxy.cut_after = b"SELECT 7"
    assert await behind_proxy.query("test.read", "SELECT 7") == [(7,)]
    proxy.cut_after = b"INSERT"
    assert (
        type(await failure_of(behind_proxy.execute("test.write", "INSERT INTO t VALUES (1)")))
        is CommitUnknown
    )
    proxy.cut_before = b"INSERT"
    lost = behind_proxy.query("test.write", "INSERT INTO t VALUES (2) RETURNING id")
    assert type(await failure_of(lost)) is CommitUnknown
    assert proxy.cuts == 3
    assert await ids(behind_proxy) == [1]


async def test_calls_survive_a_restart_of_the_server(database: Database, running: PostgresServer) -> None:
    await gatherResults([begin(database.query("test.all", "SELECT pg_sleep(0.05)")) for _ in range(8)])
    assert database.usage.open == database.usage.maximum
    running.restart()
    answers = await gatherResults([begin(database.query("test.again", "SELECT 1")) for _ in range(8)])
    assert answers == [[(1,)]] * 8
    await make_table(database)
    running.restart()
    assert await database.transaction("test.store", inserting(1)) == "stored"


async def test_a_backend_that_is_terminated_is_replaced(
    behind_proxy: Database, postgres: PostgresServer
) -> None:
    behind_proxy.start()
    await make_table(behind_proxy)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'relaymail'"
    for statement, expected in (("SELECT pg_sleep(0.5)", [("",)]), ("SELECT 1", [(1,)])):
        running_call = begin(behind_proxy.query("test.killed", statement))
        await pause(reactor, 0.1)
        postgres.sql("postgres", kill)
        assert await running_call == expected

    async def body(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO t VALUES (1)")
        postgres.sql("postgres", kill)
        await transaction.execute("INSERT INTO t VALUES (2)")

    error = await failure_of(behind_proxy.transaction("test.killed", body))
    assert type(error) is DatabaseUnavailable
    assert await ids(behind_proxy) == []


async def test_a_client_started_before_the_server_waits_for_it(
    database_parameters: Parameters, clients: list[Database], running: PostgresServer
) -> None:
    running.stop()
    database = Database(database_parameters, reactor=reactor)
    clients.append(database)
    database.start()
    error = await failure_of(database.query("test.early", "SELECT 1", timeout=0.2))
    assert type(error) is DatabaseUnavailable
    assert not database.available
    running.start()
    assert await database.query("test.late", "SELECT 1") == [(1,)]
    assert database.available


async def test_a_frozen_server_leaves_no_call_unanswered(
    database_parameters: Parameters, clients: list[Database], running: PostgresServer
) -> None:
    database = Database(database_parameters, reactor=reactor, size=2, connect_timeout=0.5)
    clients.append(database)
    database.start()
    await make_table(database)
    running.freeze()
    calls = [begin(failure_of(database.query("test.frozen", "SELECT 1", timeout=0.5))) for _ in range(5)]
    calls += [begin(failure_of(database.execute("test.frozen", "DELETE FROM t", timeout=0.5)))]
    calls += [begin(failure_of(database.transaction("test.frozen", inserting(1), timeout=0.5)))]
    calls += [begin(failure_of(database.ping(timeout=0.5)))]
    failures = await gatherResults(calls)
    assert all(isinstance(failure, DatabaseUnavailable) for failure in failures), failures
    # Connecting to a frozen server hangs as well, and is answered too
    error = await failure_of(database.query("test.frozen", "SELECT 1", timeout=1.0))
    assert type(error) is DatabaseUnavailable
    running.thaw()
    assert await database.query("test.thawed", "SELECT id FROM t", timeout=60.0) == []


async def test_a_slow_statement_is_ended_by_the_server(
    database_parameters: Parameters, clients: list[Database]
) -> None:
    database = Database(database_parameters, reactor=reactor, statement_timeout=0.2)
    clients.append(database)
    database.start()
    error = await failure_of(database.query("test.slow", "SELECT pg_sleep(30)", timeout=60.0))
    assert type(error) is DatabaseError
    assert error.sqlstate == "57014"
    assert await database.query("test.after", "SELECT 1", timeout=60.0) == [(1,)]


async def test_a_statement_left_behind_at_its_deadline_ends_in_the_server_too(
    database: Database, postgres: PostgresServer
) -> None:
    error = await failure_of(database.query("test.slow", "SELECT pg_sleep(29)", timeout=0.2))
    assert type(error) is DatabaseUnavailable

    def gone() -> bool:
        sql = "SELECT FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(29)%'"
        return not postgres.sql("postgres", sql)

    await until(reactor, gone)


# The pool


async def test_calls_wait_in_line_for_a_connection_and_no_longer_than_their_deadline(
    database_parameters: Parameters, clients: list[Database]
) -> None:
    database = Database(database_parameters, reactor=reactor, size=1)
    clients.append(database)
    database.start()
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
    database_parameters: Parameters, clients: list[Database]
) -> None:
    database = Database(database_parameters, reactor=reactor, size=1)
    clients.append(database)
    database.start()
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


# Servers and hosts


async def test_the_first_host_that_answers_is_used(
    database_parameters: Parameters, clients: list[Database], tmp_path: Path
) -> None:
    hosts = f"{tmp_path},127.0.0.1,{database_parameters['host']}"
    ports = f"5432,{free_port()},{database_parameters['port']}"
    database = Database({**database_parameters, "host": hosts, "port": ports}, reactor=reactor)
    clients.append(database)
    database.start()
    assert await database.query("test.hosts", "SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    "last_words",
    [
        b"",
        b"R\0\0",
        b"R\0\0\0\x08\0\0\0\0",
        b"E\0\0\0\x1fSFATAL\0C57P03\0Mstarting up\0\0",
        b"HTTP/1.1 400\r\n",
    ],
    ids=["silence", "half an answer", "after the login", "starting up", "not PostgreSQL"],
)
async def test_a_server_that_ends_while_we_connect_is_an_unavailable_database(last_words: bytes) -> None:
    class Ending(Protocol):
        transport: Any

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(last_words)
            self.transport.loseConnection()

    server = reactor.listenTCP(0, Factory.forProtocol(Ending), interface="127.0.0.1")
    port = str(server.getHost().port)
    parameters = {
        "host": "127.0.0.1",
        "port": port,
        "user": "u",
        "sslmode": "disable",
        "gssencmode": "disable",
    }
    before = set(reactor.getReaders())
    connection = Connection(reactor, lambda *_: None)
    with capturedLogs() as lines:
        error = await failure_of(connection.open(parameters, timeout=60))
    await server.stopListening()
    assert type(error) is DatabaseUnavailable
    assert not [line for line in lines if line["log_level"] is LogLevel.critical]
    assert connection not in set(reactor.getReaders()) - before


async def test_each_reason_for_which_the_database_is_away_is_logged_once(clients: list[Database]) -> None:
    refusal = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
    answers = [b"", *[b"E" + (4 + len(refusal)).to_bytes(4, "big") + refusal] * 2]

    class Changing(Protocol):
        transport: Any

        def dataReceived(self, data: bytes) -> None:
            if answers:
                self.transport.write(answers.pop(0))
                self.transport.loseConnection()

    server = reactor.listenTCP(0, Factory.forProtocol(Changing), interface="127.0.0.1")
    port = str(server.getHost().port)
    parameters = {
        "host": "127.0.0.1",
        "port": port,
        "user": "u",
        "sslmode": "disable",
        "gssencmode": "disable",
    }
    database = Database(parameters, reactor=reactor)
    clients.append(database)
    with capturedLogs() as lines:
        database.start()
        await until(reactor, lambda: not answers and not database.available)
        await database.stop()
    await server.stopListening()
    reasons = [str(line["reason"]) for line in lines if line["log_level"] is LogLevel.warn]
    assert len(reasons) == 2
    assert "closed the connection" in reasons[0]
    assert "password authentication failed" in reasons[1]


async def test_a_name_that_does_not_resolve_is_an_unavailable_database(
    database_parameters: Parameters, clients: list[Database]
) -> None:
    database = Database({**database_parameters, "host": "no-such-host.invalid"}, reactor=reactor)
    clients.append(database)
    database.start()
    error = await failure_of(database.query("test.name", "SELECT 1", timeout=0.5))
    assert type(error) is DatabaseUnavailable


async def test_a_server_without_fsync_is_refused(clients: list[Database]) -> None:
    server = PostgresServer({"listen_addresses": "", "fsync": "off"})
    try:
        server.start()
        database = Database(server.parameters("postgres"), reactor=reactor)
        clients.append(database)
        database.start()
        error = await failure_of(database.query("test.refused", "SELECT 1"))
        assert type(error) is DatabaseUnavailable
        assert database.refused == str(error)
        assert "fsync" in str(error)
        assert not database.available
    finally:
        server.remove()


# Listening


async def test_notifications_arrive_and_go_on_after_a_restart(
    database: Database, running: PostgresServer
) -> None:
    heard: list[str] = []
    database.listen("a channel", heard.append)
    await until(reactor, lambda: heard == [""])
    await database.query("test.notify", "SELECT pg_notify('a channel', 'one')")
    await until(reactor, lambda: heard == ["", "one"])
    running.restart()
    await until(reactor, lambda: heard == ["", "one", ""])
    await database.query("test.notify", "SELECT pg_notify('a channel', 'two')")
    await until(reactor, lambda: heard == ["", "one", "", "two"])


async def test_channels_can_be_added_while_listening(database: Database) -> None:
    first: list[str] = []
    second: list[str] = []
    database.listen("first", first.append)
    await until(reactor, lambda: first == [""])
    database.listen("second", second.append)
    await until(reactor, lambda: second == [""])
    await database.query("test.notify", "SELECT pg_notify('first', 'a'), pg_notify('second', 'b')")
    await until(reactor, lambda: first == ["", "a"] and second == ["", "b"])
