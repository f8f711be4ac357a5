"""Which servers are used, and which are refused, while a client connects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogLevel, capturedLogs

from relaymail.store.connection import Connection
from relaymail.store.database import DatabaseUnavailable
from tests.conftest import reactor
from tests.store.databases import NewClient, Parameters, failure_of
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.waiting import until


async def test_the_first_host_that_answers_is_used(
    database_parameters: Parameters, new_client: NewClient, tmp_path: Path
) -> None:
    hosts = f"{tmp_path},127.0.0.1,{database_parameters['host']}"
    ports = f"5432,{free_port()},{database_parameters['port']}"
    database = new_client({**database_parameters, "host": hosts, "port": ports})
    assert await database.query("test.hosts", "SELECT 1") == [(1,)]


@asynccontextmanager
async def server_that(speaks: type[Protocol]) -> AsyncIterator[Parameters]:
    """The parameters of a server on loopback whose every connection ``speaks``."""
    server = reactor.listenTCP(0, Factory.forProtocol(speaks), interface="127.0.0.1")
    port = str(server.getHost().port)
    try:
        yield {
            "host": "127.0.0.1",
            "port": port,
            "user": "u",
            "sslmode": "disable",
            "gssencmode": "disable",
        }
    finally:
        await server.stopListening()


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

    async with server_that(Ending) as parameters:
        before = set(reactor.getReaders())
        connection = Connection(reactor, lambda *_: None)
        with capturedLogs() as lines:
            error = await failure_of(connection.open(parameters, timeout=60))
    assert type(error) is DatabaseUnavailable
    assert not [line for line in lines if line["log_level"] is LogLevel.critical]
    assert connection not in set(reactor.getReaders()) - before


async def test_each_reason_for_which_the_database_is_away_is_logged_once(new_client: NewClient) -> None:
    refusal = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
    answers = [b"", *[b"E" + (4 + len(refusal)).to_bytes(4, "big") + refusal] * 2]

    class Changing(Protocol):
        transport: Any

        def dataReceived(self, data: bytes) -> None:
            if answers:
                self.transport.write(answers.pop(0))
                self.transport.loseConnection()

    async with server_that(Changing) as parameters:
        with capturedLogs() as lines:
            database = new_client(parameters)
            await until(reactor, lambda: not answers and not database.available)
            await database.stop()
    reasons = [str(line["reason"]) for line in lines if line["log_level"] is LogLevel.warn]
    assert len(reasons) == 2
    assert "closed the connection" in reasons[0]
    assert "password authentication failed" in reasons[1]


async def test_a_name_that_does_not_resolve_is_an_unavailable_database(
    database_parameters: Parameters, new_client: NewClient
) -> None:
    database = new_client({**database_parameters, "host": "no-such-host.invalid"})
    error = await failure_of(database.query("test.name", "SELECT 1", timeout=0.5))
    assert type(error) is DatabaseUnavailable


async def test_a_server_without_fsync_is_refused(new_client: NewClient) -> None:
    server = PostgresServer({"listen_addresses": "", "fsync": "off"})
    try:
        server.start()
        database = new_client(server.parameters("postgres"))
        error = await failure_of(database.query("test.refused", "SELECT 1"))
        assert type(error) is DatabaseUnavailable
        assert database.refused == str(error)
        assert "fsync" in str(error)
        assert not database.available
    finally:
        server.remove()
