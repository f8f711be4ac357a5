"""The embedded PostgreSQL of a demo or a small host: made at the first start, watched, stopped with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from relaymail.store.database import Database, DatabaseError
from relaymail.store.embedded import folder as folders
from relaymail.store.embedded.binaries import find_binaries
from relaymail.store.embedded.cluster import (
    DATABASE,
    PORT,
    USER,
    initdb_command,
    server_command,
    sync_command,
)
from relaymail.store.embedded.errors import (
    EmbeddedPostgresAbsent,
    EmbeddedPostgresBusy,
    EmbeddedPostgresError,
)
from relaymail.store.embedded.identity import Identity, choose_identity, command
from relaymail.store.embedded.postmaster import (
    READY,
    STOPPING,
    Adopted,
    Child,
    find_running,
    recorded_pid,
    spawn,
)

log = Logger()

START_LIMIT = 300.0
"""Seconds a start may take; only recovery after a crash under heavy work takes more than one or two."""
FAST_STOP = 10.0
"""Seconds for the "fast" shutdown, which ends every session and writes what is in memory."""
IMMEDIATE_STOP = 5.0
"""Seconds for the "immediate" one, which is a crash the next start recovers from."""
ORPHANS_LIMIT = 10.0
"""Seconds for the children of a killed server to notice and go."""
COMMANDS_LIMIT = 60.0
"""Seconds to wait for commands that use the folder while no host runs."""
FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0
_LOOK = 0.03


class EmbeddedPostgres:
    """One PostgreSQL, in the data folder ``directory``, reached over a Unix socket only.

    :param progress: called with a sentence when something takes a moment.
    :param kind: ``host``, or ``command`` for a short-lived one, which others wait for.
    :param make: whether to make the folder and a database where there is none.
    """

    def __init__(
        self,
        directory: Path,
        *,
        reactor: Any,
        progress: Callable[[str], None] | None = None,
        kind: str = folders.HOST,
        make: bool = True,
    ) -> None:
        self._directory = directory
        self._reactor = reactor
        self._progress = progress or (lambda text: None)
        self._kind = kind
        self._make = make
        self._folder: folders.Folder | None = None
        self._lock: folders.FolderLock | None = None
        self._server: Child | Adopted | None = None
        self._watch: Deferred[None] | None = None
        self._stopping = False
        self.parameters: dict[str, str] = {}
        """libpq keywords; empty until :meth:`start` has returned."""

    @property
    def url(self) -> str:
        """What psql and others take; valid once started."""
        return database_url(self.parameters)

    @property
    def pid(self) -> int | None:
        """The server's process; None while none runs."""
        return None if self._server is None or self._server.exit is not None else self._server.pid

    async def start(self) -> dict[str, str]:
        """Make what is missing, start or adopt the server, and return libpq keywords for its database.

        :raises EmbeddedPostgresMissing: its programs are not installed.
        :raises EmbeddedPostgresAbsent: there is no database, and none may be made.
        :raises EmbeddedPostgresBusy: another process runs this folder.
        :raises EmbeddedPostgresError: anything else, as a sentence with the server's own last words.
        """
        binaries = find_binaries()
        if not (self._make or folders.Folder(self._directory).touched):
            raise EmbeddedPostgresAbsent(self._directory)
        folder = self._folder = await self._in_thread(folders.make_root, self._directory)
        self._lock = await self._take_lock(folder)
        self._stopping = False
        try:
            identity = choose_identity(folder.data)
            await self._start_or_adopt(binaries, folder, identity)
            await self._ensure_database()
        except BaseException:
            await self.stop()
            raise
        self._watch = Deferred.fromCoroutine(self._keep_running(binaries, folder, identity))
        self._watch.addErrback(_unforeseen)
        return dict(self.parameters)

    async def stop(self) -> None:
        """End the server, adopted or not, and let go of the folder."""
        self._stopping = True
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        server, self._server = self._server, None
        if server is not None and server.exit is None:
            await self._end(server)
            if self._folder is not None and self.parameters:
                folders.remove_sockets(self._folder, Path(self.parameters["host"]))
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    async def _take_lock(self, folder: folders.Folder) -> folders.FolderLock:
        """A command of the CLI is soon done with the folder; a host is not."""
        limit = self._reactor.seconds() + COMMANDS_LIMIT
        while True:
            try:
                return folders.FolderLock.take(folder, self._kind)
            except EmbeddedPostgresBusy as error:
                if error.holder != folders.COMMAND or self._reactor.seconds() >= limit:
                    raise
            await self._sleep(FIRST_WAIT)

    async def _end(self, server: Child | Adopted) -> None:
        for number, patience in ((signal.SIGINT, FAST_STOP), (signal.SIGQUIT, IMMEDIATE_STOP)):
            server.send(number)
            if await self._until(lambda: server.exit is not None, patience):
                return
            log.warn("PostgreSQL {pid} has not ended within {seconds:g} s", pid=server.pid, seconds=patience)
        server.send(signal.SIGKILL)
        await server.ended()

    async def _start_or_adopt(self, binaries: Path, folder: folders.Folder, identity: Identity) -> None:
        running = find_running(folder.data)
        if running is not None and running.status == STOPPING:
            orphan = Adopted(running.pid, self._reactor)
            await self._until(lambda: orphan.exit is not None, FAST_STOP)
            running = find_running(folder.data)
        if running is not None:
            log.info("Adopting PostgreSQL {pid}, which an earlier host has left behind", pid=running.pid)
            self._server = Adopted(running.pid, self._reactor)
            if await self._ready(folder, self._server):
                self._remember(running.sockets, running.port)
                return
        if not (self._make or folder.has_data):
            raise EmbeddedPostgresAbsent(folder.root)
        fresh = await self._in_thread(folders.new_data, folder, identity)
        if fresh is not None:
            self._progress(f"Creating the database in {folder.root}")
            await self._create(binaries, folder, identity, fresh)
        await self._launch(binaries, folder, identity)

    async def _create(self, binaries: Path, folder: folders.Folder, identity: Identity, fresh: Path) -> None:
        for program in (initdb_command(binaries, fresh), sync_command(binaries, fresh)):
            log_file = folders.open_log(folder)
            start = os.fstat(log_file).st_size
            try:
                child = spawn(self._reactor, self._command(identity, program, fresh), log_file)
                await self._finished(child)
            finally:
                os.close(log_file)
            if not child.succeeded:
                said = folders.end_of_log(folder, start)
                await self._in_thread(folders.discard, fresh)
                raise EmbeddedPostgresError(f"The database cannot be made in {folder.root}: {said}")
        await self._in_thread(folders.finish_data, folder, fresh)

    async def _finished(self, child: Child) -> None:
        """Wait for a program; where we are cancelled it is not left behind."""
        try:
            await child.ended()
        except CancelledError:
            await self._end(child)
            raise

    async def _launch(self, binaries: Path, folder: folders.Folder, identity: Identity) -> None:
        """Start the server and wait until it takes connections."""
        sockets = await self._in_thread(folders.make_sockets, folder, identity)
        program = self._command(
            identity, server_command(binaries, folder.data, sockets), folder.data, sockets
        )
        patience = self._reactor.seconds() + ORPHANS_LIMIT
        while True:
            log_file = folders.open_log(folder)
            start = os.fstat(log_file).st_size
            try:
                self._server = spawn(self._reactor, program, log_file, recorded_pid(folder.data))
            finally:
                os.close(log_file)
            if await self._ready(folder, self._server):
                self._remember(sockets, PORT)
                return
            said = folders.end_of_log(folder, start)
            if "shared memory block" not in said or self._reactor.seconds() > patience:
                raise EmbeddedPostgresError(f"PostgreSQL does not start ({self._server.exit}): {said}")
            # Children of a killed server are still at its data; they notice within moments
            await self._sleep(FIRST_WAIT)

    async def _ready(self, folder: folders.Folder, server: Child | Adopted) -> bool:
        """Wait until ``server`` takes connections; False if it ended instead."""

        def decided() -> bool:
            if server.exit is not None:
                return True
            running = find_running(folder.data)
            return running is not None and running.pid == server.pid and running.status == READY

        if not await self._until(decided, FAST_STOP):
            self._progress("PostgreSQL is recovering from a crash, this can take a moment")
            if not await self._until(decided, START_LIMIT):
                raise EmbeddedPostgresError(f"PostgreSQL did not start within {START_LIMIT:g} s")
        return server.exit is None

    def _command(self, identity: Identity, program: list[str], *places: Path) -> list[str]:
        return command(identity, program, [Path(program[0]), *places])

    def _remember(self, sockets: Path, port: int) -> None:
        self.parameters = parameters_for(sockets, port)

    async def _ensure_database(self) -> None:
        """A first start that was killed may have left a server without the database."""
        database = Database(
            {**self.parameters, "dbname": "postgres"}, reactor=self._reactor, size=1, statement_timeout=60.0
        )
        database.start()
        try:
            if not await database.query(
                "embedded.look", "SELECT FROM pg_database WHERE datname = %s", (DATABASE,)
            ):
                await database.execute("embedded.create", f"CREATE DATABASE {DATABASE}")
                # The detail of an error in the log could quote somebody's address
                await database.execute(
                    "embedded.terse", f"ALTER DATABASE {DATABASE} SET log_error_verbosity = terse"
                )
        except DatabaseError as error:
            reason = database.refused or str(error)
            raise EmbeddedPostgresError(f"The embedded PostgreSQL cannot be used: {reason}") from error
        finally:
            await database.stop()

    async def _keep_running(self, binaries: Path, folder: folders.Folder, identity: Identity) -> None:
        while not self._stopping:
            assert self._server is not None
            await self._server.ended()
            log.error("PostgreSQL ended by itself ({how}), starting it again", how=self._server.exit)
            await self._restart(binaries, folder, identity)

    async def _restart(self, binaries: Path, folder: folders.Folder, identity: Identity) -> None:
        wait = FIRST_WAIT
        while not self._stopping:
            try:
                if self.pid is None:
                    await self._launch(binaries, folder, identity)
                elif self._server is not None and await self._ready(folder, self._server):
                    # The one that was launched before took longer than expected
                    self._remember(folder.sockets(identity), PORT)
            except CancelledError:
                raise
            except EmbeddedPostgresError as error:
                log.error("{reason}", reason=str(error))
            except Exception:
                # Such as no memory for another process, which may be what ended the last one
                log.failure("PostgreSQL could not be started, trying again")
            else:
                if self.pid is not None:
                    log.info("PostgreSQL runs again")
                    return
            await self._sleep(wait)
            wait = min(LONGEST_WAIT, wait * 2)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Look again and again; whether ``condition`` came true within ``seconds``."""
        limit = self._reactor.seconds() + seconds
        while not condition():
            if self._reactor.seconds() >= limit:
                return False
            await self._sleep(_LOOK)
        return True

    async def _sleep(self, seconds: float) -> None:
        over: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._reactor.callLater(seconds, over.callback, None)
        await over

    async def _in_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)


def parameters_for(sockets: Path, port: int) -> dict[str, str]:
    """libpq keywords for the embedded server whose socket is in ``sockets``."""
    return {"host": str(sockets), "port": str(port), "user": USER, "dbname": DATABASE}


def database_url(parameters: dict[str, str]) -> str:
    """The ``postgresql://`` URL that psql takes for an embedded server's parameters."""
    host = quote(parameters["host"], safe="/")
    return f"postgresql://{parameters['user']}@/{parameters['dbname']}?host={host}&port={parameters['port']}"


def _unforeseen(failure: Any) -> None:
    if not failure.check(CancelledError):
        log.failure("Watching PostgreSQL failed in an unforeseen way", failure=failure)
