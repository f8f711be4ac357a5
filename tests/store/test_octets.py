"""What goes into a bytea column comes out again as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relaymail.store.octets import octets
from tests.support.postgres import PostgresServer

_ODD = st.text(alphabet="\\x0\0'%1a\r\n\x7f", max_size=40).map(str.encode)


@pytest.fixture(scope="module")
def column(postgres: PostgresServer) -> Iterator[Any]:
    """A bytea column."""
    with psycopg2.connect(**postgres.parameters("postgres")) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TEMPORARY TABLE kept (content bytea)")
        yield cursor
    connection.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=200) | _ODD, min_size=1, max_size=5))
@example([b""])
@example([b"\\x41"])
@example([b"ASCII beside", b"\xff"])
def test_all_octets_come_back(column: Any, contents: list[bytes]) -> None:
    column.execute("TRUNCATE kept")
    values = ",".join(["(%s)"] * len(contents))
    column.execute(f"INSERT INTO kept (content) VALUES {values}", [octets(one) for one in contents])
    column.execute("SELECT content FROM kept ORDER BY ctid")
    assert [bytes(row[0]) for row in column.fetchall()] == contents


def test_ascii_goes_in_without_becoming_longer() -> None:
    assert octets(b"Subject: \r\n") == "Subject: \r\n"
    assert octets(b"\xe9") == b"\xe9"
