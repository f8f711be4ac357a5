"""A real PostgreSQL for the tests, from the embedded binaries, on a Unix socket; driven with blocking calls.

fsync stays on, as the host wants it; it costs nothing, as the data are in memory where there is ``/dev/shm``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import psycopg2

from relaymail.store.embedded.binaries import find_binaries
from relaymail.store.embedded.cluster import PORT, SETTINGS, USER, initdb_command, server_command
from relaymail.store.embedded.identity import choose_identity, command
from relaymail.store.embedded.postmaster import find_running, is_alive

START_LIMIT = 120.0
_MEMORY = Path("/dev/shm")
_PREFIX = "relaymail-tests-"


class PostgresServer:
    """One server with its own throw-away data folder."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        place = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
        _remove_leftovers(place)
        self._settings = dict(settings)
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
        self._binaries = find_binaries()
        self._data = self._folder / "data"
        self._identity = choose_identity(self._data)
        self.log = self._folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        os.chown(self._folder, self._identity.uid, self._identity.gid)
        made = self._run(initdb_command(self._binaries, self._data))
        made.wait()
        assert made.returncode == 0, self.log.read_text()

    @property
    def sockets(self) -> Path:
        """The folder of the server's socket."""
        return self._folder

    def parameters(self, dbname: str) -> dict[str, str]:
        """libpq keywords for one of its databases."""
        return {"host": str(self._folder), "port": str(PORT), "user": USER, "dbname": dbname}

    def url(self, dbname: str) -> str:
        """The same as a URL."""
        return f"postgresql://{USER}@/{dbname}?host={self._folder}&port={PORT}"

    @property
    def stopped(self) -> bool:
        """Whether it has to be started to be used."""
        return self._process is None

    def start(self) -> None:
        """Start, and return when it takes connections."""
        assert self._process is None, "it runs already"
        self._process = self._run(server_command(self._binaries, self._data, self._folder, self._settings))
        limit = time.monotonic() + START_LIMIT
        while not self._answers():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.01)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop at once: by default the "fast" way, with SIGQUIT the "immediate" one, as in a crash."""
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(how)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop and start; every connection ends."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop all its processes in the middle of what they do; connections stay open and silent."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)  # first the one that makes new ones
        self._frozen = [self._process.pid, *_children(self._process.pid)]
        for pid in self._frozen[1:]:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        for pid in reversed(self._frozen):
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        self._frozen = []

    def sql(self, dbname: str, statement: str) -> list[tuple[object, ...]]:
        """Run a statement in the blocking way, beside what is being tested."""
        connection = psycopg2.connect(**self.parameters(dbname))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def new_database(self, template: str = "template0") -> str:
        """The name of a new copy of ``template``."""
        name = f"t_{uuid.uuid4().hex}"
        # Copying files takes a tenth of the time of going through the WAL, where the data are in memory
        self.sql("postgres", f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return name

    def drop_database(self, name: str) -> None:
        """Forget it, whoever is connected."""
        self.sql("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def remove(self) -> None:
        """Stop and leave nothing behind."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder)

    def _run(self, program: list[str]) -> subprocess.Popen[bytes]:
        reach = [Path(program[0]), self._folder]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command(self._identity, program, reach),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            )

    def _answers(self) -> bool:
        try:
            psycopg2.connect(**self.parameters("postgres"), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True


def _remove_leftovers(place: Path) -> None:
    """End and remove the servers of test runs that were killed."""
    for folder in place.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if not owner.isdigit() or is_alive(int(owner)) or not os.access(folder, os.W_OK):
            continue
        running = find_running(folder / "data")
        if running is not None:
            end_leftover(running.pid)
        shutil.rmtree(folder, ignore_errors=True)


def end_leftover(pid: int, limit: float = 60.0) -> None:
    """End a server that nobody waits for; a kill -9 would leave its shared memory behind."""
    os.kill(pid, signal.SIGQUIT)
    end = time.monotonic() + limit
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]
