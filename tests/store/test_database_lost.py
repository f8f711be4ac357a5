"""Servers that restart, freeze and fall silent: every call is answered, and a lost COMMIT is unknown."""

from __future__ import annotations

from twisted.internet.defer import gatherResults

from relaymail.store.database import CommitUnknown, Database, DatabaseError, DatabaseUnavailable, Transaction
from tests.conftest import reactor
from tests.store.databases import NewClient, Parameters, begin, failure_of, ids, inserting, make_table
from tests.support.postgres import PostgresServer
from tests.support.proxy import CuttingProxy
from tests.support.waiting import pause, until


async def test_loss_before_commit_is_sent_means_not_stored(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    await make_table(behind_proxy)
    proxy.cut_before = b"(2)"
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1, 2)))
    assert proxy.cuts == 1
    assert type(error) is DatabaseUnavailable
    assert await ids(behind_proxy) == []


async def test_a_lost_commit_that_the_server_did_is_unknown(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    await make_table(behind_proxy)
    proxy.cut_after = b"COMMIT"
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1)))
    assert proxy.cuts == 1
    assert type(error) is CommitUnknown
    assert await ids(behind_proxy) == [1]


async def test_a_lost_commit_that_the_server_never_saw_is_unknown_too(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    await make_table(behind_proxy)
    proxy.cut_before = b"COMMIT"
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1)))
    assert proxy.cuts == 1
    assert type(error) is CommitUnknown
    assert await ids(behind_proxy) == []


async def test_a_commit_without_an_answer_is_unknown_at_the_deadline(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    await make_table(behind_proxy)
    proxy.silent_after = b"COMMIT"
    # Long enough for a busy machine to come as far as the COMMIT
    error = await failure_of(behind_proxy.transaction("test.store", inserting(1), timeout=2.0))
    assert type(error) is CommitUnknown
    assert await ids(behind_proxy) == [1]


async def test_the_first_statement_of_a_transaction_is_sent_again_on_another_connection(
    behind_proxy: Database, proxy: CuttingProxy
) -> None:
    await make_table(behind_proxy)
    proxy.cut_after = b"BEGIN"
    assert await behind_proxy.transaction("test.store", inserting(1, 2)) == "stored"
    assert proxy.cuts == 1
    assert await ids(behind_proxy) == [1, 2]


async def test_a_select_is_sent_again_and_a_write_is_not(behind_proxy: Database, proxy: CuttingProxy) -> None:
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
    database_parameters: Parameters, new_client: NewClient, running: PostgresServer
) -> None:
    running.stop()
    database = new_client(database_parameters)
    error = await failure_of(database.query("test.early", "SELECT 1", timeout=0.2))
    assert type(error) is DatabaseUnavailable
    assert not database.available
    running.start()
    assert await database.query("test.late", "SELECT 1") == [(1,)]
    assert database.available


async def test_a_frozen_server_leaves_no_call_unanswered(
    database_parameters: Parameters, new_client: NewClient, running: PostgresServer
) -> None:
    database = new_client(database_parameters, size=2, connect_timeout=0.5)
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
    database_parameters: Parameters, new_client: NewClient
) -> None:
    database = new_client(database_parameters, statement_timeout=0.2)
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
