"""The embedded PostgreSQL: first start, second start, and what a kill -9 leaves behind."""

# The tests look at files and run small programs while nothing else needs the reactor
# ruff: noqa: ASYNC221, ASYNC240

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from relaymail.store.database import Database
from relaymail.store.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresBusy,
    EmbeddedPostgresError,
    EmbeddedPostgresMissing,
    attach_or_start,
    running_parameters,
)
from relaymail.store.embedded import binaries as programs
from relaymail.store.embedded.cluster import SETTINGS
from relaymail.store.embedded.folder import Folder, FolderLock, make_sockets
from relaymail.store.embedded.identity import Identity, choose_identity, command
from relaymail.store.embedded.postmaster import find_running, is_alive, spawn
from tests.conftest import reactor, run_on_reactor
from tests.support.postgres import end_leftover
from tests.support.waiting import until

IS_ROOT = os.geteuid() == 0

HOST = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from relaymail.store.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]), reactor=reactor, kind=sys.argv[2])
def started(_):
    print(server.pid, flush=True)
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(server.start()).addCallback(started))
reactor.run()
"""
"""A host that starts the server and then does nothing, to be killed."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for a data folder, with a short path; what still runs there afterwards is ended."""
    parent = Path(tempfile.mkdtemp(prefix="relaymail-"))
    yield parent / "data"
    if (running := find_running(parent / "data" / "postgres")) is not None:
        end_leftover(running.pid)
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def servers() -> Iterator[list[EmbeddedPostgres]]:
    """Servers put in here are stopped after the test."""
    made: list[EmbeddedPostgres] = []
    yield made

    async def stop() -> None:
        for server in made:
            await server.stop()

    run_on_reactor(stop())


@pytest.fixture
def hosts() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes put in here are killed after the test."""
    made: list[subprocess.Popen[str]] = []
    yield made
    for process in made:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def running_on(data: Path) -> list[int]:
    """Every process whose command line names ``data``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(data / "postgres") in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


def start_host(folder: Path, kind: str = "host") -> tuple[subprocess.Popen[str], int]:
    """A process that runs the server of ``folder``, and the server's pid."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, str(folder), kind],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


async def ask(parameters: dict[str, str], sql: str) -> list[tuple[Any, ...]]:
    """The answer to one statement."""
    database = Database(parameters, reactor=reactor, size=1)
    database.start()
    try:
        return await database.query("test.ask", sql)
    finally:
        await database.stop()


async def test_the_first_start_makes_a_durable_database_and_stop_leaves_nothing_running(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    said: list[str] = []
    server = EmbeddedPostgres(folder, reactor=reactor, progress=said.append)
    servers.append(server)
    parameters = await server.start()
    assert said == [f"Creating the database in {folder.resolve()}"]
    answer = await ask(
        parameters,
        "SELECT current_setting('fsync'), current_setting('full_page_writes'),"
        " current_setting('data_checksums'), current_setting('server_encoding'),"
        " current_setting('listen_addresses'), lower('ÄÖ')",
    )
    assert answer == [("on", "on", "on", "UTF8", "", "äö")]
    assert server.pid is not None
    assert os.getsid(server.pid) == server.pid, "Ctrl-C of the terminal must not reach it"
    await server.stop()
    assert running_on(folder) == []
    assert running_parameters(folder) is None
    assert {entry.name for entry in folder.iterdir()} <= {"postgres", "postgres.log", "relaymail.lock", "run"}


async def test_a_second_start_goes_on_with_the_same_data(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    said: list[str] = []
    for expected in ([(None,)], [("t",)]):
        server = EmbeddedPostgres(folder, reactor=reactor, progress=said.append)
        servers.append(server)
        parameters = await server.start()
        assert await ask(parameters, "SELECT to_regclass('t')::text") == expected
        await ask(parameters, "CREATE TABLE IF NOT EXISTS t ()")
        await server.stop()
    assert len(said) == 1


async def test_psql_takes_the_url(folder: Path, servers: list[EmbeddedPostgres]) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    await server.start()
    psql = programs.find_binaries() / "psql"
    done = subprocess.run(
        [psql, server.url, "-Atc", "SELECT 42"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("42\n", "")
    assert running_parameters(folder) == server.parameters


async def test_blanks_and_quotes_in_the_path_do_no_harm(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    server = EmbeddedPostgres(folder / "é \"'%\\ #", reactor=reactor)
    servers.append(server)
    parameters = await server.start()
    assert await ask(parameters, "SELECT 1") == [(1,)]
    assert Path(parameters["host"]).parent == folder / "é \"'%\\ #"


@pytest.mark.parametrize("name", ["long" * 30, "a,b"])
async def test_a_path_that_will_not_do_for_a_socket_still_works(
    folder: Path, servers: list[EmbeddedPostgres], name: str
) -> None:
    server = EmbeddedPostgres(folder / name, reactor=reactor)
    servers.append(server)
    parameters = await server.start()
    assert await ask(parameters, "SELECT 1") == [(1,)]
    sockets = Path(parameters["host"])
    assert sockets.stat().st_mode & 0o077 == 0
    await server.stop()
    assert not sockets.exists()


def test_a_socket_folder_somebody_else_has_prepared_is_refused(folder: Path) -> None:
    place = Folder(folder / ("long" * 30))
    us = Identity(os.geteuid(), os.getegid())
    sockets = place.sockets(us)
    folder.mkdir()
    sockets.symlink_to(folder)
    try:
        with pytest.raises(EmbeddedPostgresError, match="Remove it"):
            make_sockets(place, us)
        sockets.unlink()
        sockets.mkdir()
        sockets.chmod(0o755)
        with pytest.raises(EmbeddedPostgresError, match="alone"):
            make_sockets(place, us)
    finally:
        if sockets.is_symlink():
            sockets.unlink()
        else:
            sockets.rmdir()


async def test_two_hosts_cannot_run_one_folder(folder: Path, hosts: list[subprocess.Popen[str]]) -> None:
    host, _ = start_host(folder)
    hosts.append(host)
    with pytest.raises(EmbeddedPostgresBusy, match=f"in use by process {host.pid}"):
        await EmbeddedPostgres(folder, reactor=reactor).start()


async def test_a_server_left_by_a_killed_host_is_adopted_and_stopped(
    folder: Path, servers: list[EmbeddedPostgres], hosts: list[subprocess.Popen[str]]
) -> None:
    host, pid = start_host(folder)
    hosts.append(host)
    host.kill()
    host.wait()
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    parameters = await server.start()
    assert server.pid == pid
    assert await ask(parameters, "SELECT 1") == [(1,)]
    await server.stop()
    assert not is_alive(pid)


async def test_a_start_after_everything_was_killed_works(
    folder: Path, servers: list[EmbeddedPostgres], hosts: list[subprocess.Popen[str]]
) -> None:
    host, pid = start_host(folder)
    hosts.append(host)
    host.kill()
    os.kill(pid, signal.SIGKILL)
    host.wait()
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    assert await ask(await server.start(), "SELECT 1") == [(1,)]


async def test_a_pid_file_that_names_another_process_is_stale(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    await server.start()
    assert server.pid is not None
    kept = (folder / "postgres" / "postmaster.pid").read_text()
    await server.stop()
    # As after the restart of a container, where the same pid is the next process's
    other = kept.replace(kept.split("\n")[0], str(os.getppid()), 1)
    for name in (folder / "postgres" / "postmaster.pid", folder / "run" / ".s.PGSQL.5432.lock"):
        name.write_text(other)
        os.chown(name, folder.joinpath("postgres").stat().st_uid, -1)
    assert running_parameters(folder) is None
    assert await ask(await server.start(), "SELECT 1") == [(1,)]


async def test_a_killed_server_comes_back(folder: Path, servers: list[EmbeddedPostgres]) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    database = Database(await server.start(), reactor=reactor, size=1)
    database.start()
    try:
        await database.ping()
        first = server.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(reactor, lambda: server.pid not in (None, first))
        assert await database.query("test.again", "SELECT 1") == [(1,)]
    finally:
        await database.stop()


async def test_a_killed_server_comes_back_where_the_first_try_finds_no_memory(
    folder: Path, servers: list[EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    await server.start()
    first = server.pid
    assert first is not None
    failures = iter((OSError(errno.ENOMEM, "Cannot allocate memory"),))

    def short_of_memory(*arguments: Any) -> Any:
        for failure in failures:
            raise failure
        return spawn(*arguments)

    monkeypatch.setattr("relaymail.store.embedded.server.spawn", short_of_memory)
    os.kill(first, signal.SIGKILL)
    await until(reactor, lambda: server.pid not in (None, first))


async def test_a_server_that_recovers_for_long_is_waited_for_and_not_started_twice(
    folder: Path, servers: list[EmbeddedPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    await server.start()
    first = server.pid
    assert first is not None
    started: list[Any] = []
    impatience = iter((EmbeddedPostgresError("PostgreSQL did not start within 300 s"),))

    def counted(*arguments: Any) -> Any:
        started.append(spawn(*arguments))
        return started[-1]

    ready = EmbeddedPostgres._ready

    async def slow(self: EmbeddedPostgres, *arguments: Any) -> bool:
        for error in impatience:
            raise error
        return await ready(self, *arguments)

    monkeypatch.setattr("relaymail.store.embedded.server.spawn", counted)
    monkeypatch.setattr(EmbeddedPostgres, "_ready", slow)
    os.kill(first, signal.SIGKILL)
    await until(reactor, lambda: running_parameters(folder) is not None and server.pid not in (None, first))
    database = Database(server.parameters, reactor=reactor)
    database.start()
    try:
        assert await database.query("test.again", "SELECT 1") == [(1,)]
    finally:
        await database.stop()
    assert [child.pid for child in started] == [server.pid]


async def test_a_first_start_that_was_killed_is_begun_anew(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    folder.mkdir()
    unfinished = folder / "postgres.new-x"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    assert await ask(await server.start(), "SELECT 1") == [(1,)]
    assert not unfinished.exists()


async def test_what_is_no_data_folder_is_left_alone(folder: Path) -> None:
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "diary.txt").write_text("precious")
    with pytest.raises(EmbeddedPostgresError, match="not empty"):
        await EmbeddedPostgres(folder, reactor=reactor).start()
    assert (folder / "postgres" / "diary.txt").read_text() == "precious"
    FolderLock.take(Folder(folder), "host").release()


async def test_damaged_data_are_reported_with_the_servers_words(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    await server.start()
    await server.stop()
    (folder / "postgres" / "PG_VERSION").write_text("9.1\n")
    with pytest.raises(EmbeddedPostgresError, match=r"version 9\.1"):
        await server.start()
    assert server.pid is None


async def test_a_folder_that_cannot_be_made_is_explained(folder: Path) -> None:
    folder.parent.joinpath("file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match=r"cannot be made: Not a directory"):
        await EmbeddedPostgres(folder.parent / "file" / "data", reactor=reactor).start()


def test_a_missing_wheel_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedPostgresMissing, match=r"relaymail\[embedded\]"):
        programs.find_binaries()


# Commands beside a host


async def test_a_command_uses_the_hosts_server_and_leaves_it_running(
    folder: Path, hosts: list[subprocess.Popen[str]]
) -> None:
    host, pid = start_host(folder)
    hosts.append(host)
    attached = await attach_or_start(folder, reactor=reactor)
    assert await ask(attached.parameters, "SELECT 1") == [(1,)]
    await attached.stop()
    assert is_alive(pid)


async def test_a_command_without_a_host_runs_the_server_for_itself(folder: Path) -> None:
    attached = await attach_or_start(folder, reactor=reactor, make=True)
    assert await ask(attached.parameters, "SELECT 1") == [(1,)]
    await attached.stop()
    assert running_on(folder) == []


async def test_a_host_and_a_command_wait_for_a_command(
    folder: Path, hosts: list[subprocess.Popen[str]], servers: list[EmbeddedPostgres]
) -> None:
    other, _ = start_host(folder, "command")
    hosts.append(other)
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    starting = Deferred.fromCoroutine(server.start())
    looks: list[None] = []
    reactor.callLater(0.3, looks.append, None)
    await until(reactor, lambda: bool(looks))
    assert not starting.called
    other.kill()
    assert await ask(await starting, "SELECT 1") == [(1,)]


# Root


@pytest.mark.skipif(not IS_ROOT, reason="only root runs the server as somebody else")
async def test_root_runs_it_as_somebody_else_in_a_folder_closed_to_them(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    folder.mkdir(mode=0o700)
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    assert await ask(await server.start(), "SELECT 1") == [(1,)]
    status = Path(f"/proc/{server.pid}/status").read_text()
    uid = int(status.partition("\nUid:")[2].split()[0])
    assert uid != 0
    assert (folder / "postgres").stat().st_uid == uid
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    capabilities = int(status.partition("\nCapEff:")[2].split()[0], 16)
    assert capabilities == 1 << 2, "CAP_DAC_READ_SEARCH and no other"


@pytest.mark.skipif(not IS_ROOT, reason="only root can take the owner's place")
async def test_root_goes_on_with_the_data_of_an_ordinary_user(
    folder: Path, servers: list[EmbeddedPostgres]
) -> None:
    server = EmbeddedPostgres(folder, reactor=reactor)
    servers.append(server)
    await server.start()
    await server.stop()
    for place in (folder, *folder.rglob("*")):
        os.lchown(place, 65534, 65534)
    assert choose_identity(folder / "postgres") == Identity(65534, 65534)
    assert await ask(await server.start(), "SELECT 1") == [(1,)]


def test_no_capability_is_given_where_none_is_needed() -> None:
    other = Identity(os.geteuid() + 1, os.getegid() + 1)
    line = command(other, ["/usr/bin/env"], [Path("/usr/bin/env"), Path("/usr")])
    assert f"--as={other.uid}:{other.gid}" in line
    assert not any("setpriv" in part for part in line)


def test_durability_is_never_configured_away() -> None:
    assert {SETTINGS[name] for name in ("fsync", "full_page_writes", "synchronous_commit")} == {"on"}
