"""Fixtures every test may use: a real PostgreSQL for the session, a fresh database for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaymail.store.database import Database
from relaymail.store.schema import upgrade
from tests.conftest import reactor, run_on_reactor
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The session's server. A test that stops or freezes it must have it running again at its end."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer) -> str:
    """The name of a database with schema ``relaymail`` and the standalone tables, to be copied."""
    name = postgres.new_database()

    async def migrate() -> None:
        database = Database(postgres.parameters(name), reactor=reactor)
        database.start()
        try:
            await upgrade(database, standalone=True)
        finally:
            await database.stop()

    run_on_reactor(migrate())
    return name


@pytest.fixture
def empty_database_parameters(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """libpq keywords of a database of this test's own, with nothing in it."""
    name = postgres.new_database()
    yield postgres.parameters(name)
    postgres.drop_database(name)


@pytest.fixture
def database_parameters(postgres: PostgresServer, migrated_template: str) -> Iterator[dict[str, str]]:
    """libpq keywords of a database of this test's own, migrated, with the standalone tables."""
    name = postgres.new_database(migrated_template)
    yield postgres.parameters(name)
    postgres.drop_database(name)


@pytest.fixture
def database(database_parameters: dict[str, str]) -> Iterator[Database]:
    """A started client on this test's own migrated database."""
    client = Database(database_parameters, reactor=reactor)

    async def start() -> None:
        client.start()
        await client.ping()

    run_on_reactor(start())
    yield client
    run_on_reactor(client.stop())
