"""The command beside a host with the embedded PostgreSQL, and after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg2
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from relaymail.store.embedded import EmbeddedPostgres
from tests.cli.conftest import Command
from tests.conftest import reactor
from tests.support.postgres import PostgresServer


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder whose path is short enough for a Unix socket."""
    with TemporaryDirectory(prefix="relaymail-cli-") as name:
        yield Path(name)


def servers(folder: Path) -> list[str]:
    """The postgres processes that run on ``folder``."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line and "postgres" in line]


def test_without_a_host_the_server_runs_for_the_command_alone(folder: Path) -> None:
    command = Command({}, folder)
    options = ["--demo", "--data", str(folder)]
    assert "relaymail db upgrade" in command.error(*options, "user", "list", code=69)
    assert "public tables" in command.json(*options, "db", "upgrade")["done"]
    command(*options, "user", "add", "demo@example.test")
    made = command.json(*options, "key", "create", "demo@example.test", "--name", "test")
    assert [key["id"] for key in command.json(*options, "key", "list")] == [made["id"]]
    assert b"No host runs" in command(*options, "db", "url").stderr
    assert servers(folder) == []


@pytest.mark.parametrize("name", ["", "mistyped"])
def test_a_folder_without_a_database_stays_without_one(folder: Path, name: str) -> None:
    asked = folder / name
    for arguments in (["message", "list"], ["db", "url"], ["db", "status"]):
        error = Command({}, folder).error("--demo", "--data", str(asked), *arguments, code=69)
        assert f"none in the data folder {asked}" in error
        assert "--data or Data:Directory" in error
    assert list(folder.rglob("PG_VERSION")) == []
    assert asked.exists() == (name == "")
    assert list(folder.iterdir()) == []


async def test_beside_a_host_its_server_is_used_and_left_running(folder: Path) -> None:
    def command(*arguments: str) -> Deferred[str]:
        return deferToThread(Command({}, folder).text, "--demo", "--data", str(folder), *arguments)

    host = EmbeddedPostgres(folder, reactor=reactor)
    await host.start()
    try:
        await command("db", "upgrade")
        await command("user", "add", "demo@example.test")
        url = (await command("db", "url")).rstrip("\n")
        connection = psycopg2.connect(url)
        with connection.cursor() as cursor:
            cursor.execute('SELECT "Email" FROM public."Users"')
            assert cursor.fetchall() == [("demo@example.test",)]
        connection.close()
        assert servers(folder) != []
    finally:
        await host.stop()


def test_control_c_ends_a_command_that_waits(
    relaymail: Command, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    blocker = psycopg2.connect(**database_parameters)
    try:
        blocker.cursor().execute('LOCK TABLE public."Users" IN ACCESS EXCLUSIVE MODE')
        process = subprocess.Popen(
            [sys.executable, "-m", "relaymail.cli", "user", "list"],
            env=dict(relaymail.environment),
            stderr=subprocess.PIPE,
        )
        waiting = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> {blocker.info.backend_pid}"
        while postgres.sql(database_parameters["dbname"], waiting) == [(0,)]:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, complaint = process.communicate(timeout=120)
        assert (process.returncode, complaint) == (130, b"")
    finally:
        blocker.close()
