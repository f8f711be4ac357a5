"""Clients of the database, and servers that restart, freeze or are cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaymail.store.database import Database
from tests.conftest import reactor, run_on_reactor
from tests.store.databases import NewClient, Parameters
from tests.support.postgres import PostgresServer
from tests.support.proxy import CuttingProxy


@pytest.fixture
def new_client() -> Iterator[NewClient]:
    """Makes and starts clients, which are stopped after the test."""
    made: list[Database] = []

    def make(parameters: Parameters, **options: Any) -> Database:
        client = Database(parameters, reactor=reactor, **options)
        made.append(client)
        client.start()
        return client

    yield make

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
def behind_proxy(proxy: CuttingProxy, database_parameters: Parameters, new_client: NewClient) -> Database:
    """A client whose connections can be cut."""

    async def make() -> Database:
        parameters = {**database_parameters, "host": str(proxy.folder)}
        return new_client(parameters, size=2, statement_timeout=5.0)

    client: Database = run_on_reactor(make())
    return client
