"""Statements to a real server: values, errors, and what is observed of them."""

from __future__ import annotations

import uuid

import pytest

from relaymail.store.database import Database, DatabaseError
from tests.store.databases import NewClient, Parameters, failure_of, inserting, make_table


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
    database_parameters: Parameters, new_client: NewClient
) -> None:
    seen: list[tuple[str, bool, BaseException | None]] = []
    database = new_client(
        database_parameters,
        observe=lambda name, seconds, failure: seen.append((name, seconds >= 0, failure)),
    )
    await make_table(database)
    await database.transaction("test.store", inserting(1, 2))
    error = await failure_of(database.query("test.bad", "SELEC"))
    assert seen == [("test.create", True, None), ("test.store", True, None), ("test.bad", True, error)]


async def test_large_statements_arrive_whole(database: Database) -> None:
    content = bytes(range(256)) * 16 * 1024
    rows = await database.query("test.large", "SELECT %s::bytea", (content,))
    assert rows == [(content,)]
