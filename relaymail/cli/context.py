"""What the commands share: the host's settings, a run of the reactor, a database, errors and exit codes."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click
from twisted.internet import task
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from relaymail.settings import Loaded, Settings, SettingsError, load, require_database
from relaymail.store import schema
from relaymail.store.administration import AccountError
from relaymail.store.archive import ArchiveError
from relaymail.store.database import Database, DatabaseError, DatabaseUnavailable
from relaymail.store.dialing import Dialer
from relaymail.store.embedded import EmbeddedPostgresError, attach_or_start
from relaymail.store.schema.errors import SchemaError

T = TypeVar("T")

_PLACE = ("host", "port", "dbname", "user")
"""What of a database's parameters tells an operator which one it is."""

FAILED = 1
UNAVAILABLE = 69
"""EX_UNAVAILABLE of sysexits.h."""
BAD_SETTINGS = 78
"""EX_CONFIG of sysexits.h."""
INTERRUPTED = 130

CONNECT_TIMEOUT = 5.0
STATEMENT_TIMEOUT = 60.0


class CommandFailed(click.ClickException):
    """Ends the command with a sentence on standard error."""

    exit_code = FAILED


class BadSettings(CommandFailed):
    """A setting is wrong or missing."""

    exit_code = BAD_SETTINGS


class Unavailable(CommandFailed):
    """There is no database to be had."""

    exit_code = UNAVAILABLE


@dataclass
class Invocation:
    """The options in front of the subcommand, and what follows from them."""

    config: Path | None
    demo: bool
    data: Path | None

    @cached_property
    def loaded(self) -> Loaded:
        """The host's settings."""
        try:
            return load(self.config, os.environ, demo=self.demo, data=self.data)
        except SettingsError as error:
            raise BadSettings(str(error)) from None

    @property
    def settings(self) -> Settings:
        """The same without their sources."""
        return self.loaded.settings

    def with_database(
        self, work: Callable[[Database], Awaitable[T]], *, any_schema: bool = False, make: bool = False
    ) -> T:
        """Run ``work`` on the host's database and return what it returned.

        :param any_schema: go on too where tables are missing or not the ones this version knows.
        :param make: make the embedded database where there is none.
        """
        return self.with_database_and_clock(
            lambda database, _: work(database), any_schema=any_schema, make=make
        )

    def with_database_and_clock(
        self,
        work: Callable[[Database, Any], Awaitable[T]],
        *,
        any_schema: bool = False,
        make: bool = False,
    ) -> T:
        """The same for work that has to wait."""
        settings = self.settings

        async def body(reactor: Any) -> T:
            async with (
                _parameters(settings, reactor, make=make) as parameters,
                _database(parameters, reactor) as database,
            ):
                if not any_schema:
                    await _require_schema(database)
                return await work(database, reactor)

        return run(body)

    def database_parameters(self) -> dict[str, str]:
        """libpq keywords of the host's database, which for the embedded one exists at least for this call."""
        settings = self.settings

        async def body(reactor: Any) -> dict[str, str]:
            async with _parameters(settings, reactor) as parameters:
                return dict(parameters)

        return run(body)


pass_invocation = click.make_pass_decorator(Invocation)


def run(body: Callable[[Any], Awaitable[T]]) -> T:
    """Run ``body`` on the reactor and return what it returned; foreseen errors become :class:`CommandFailed`.

    Ctrl-C cancels the body and lets it clean up, so that an embedded server started for it is stopped.
    """
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    outcome: list[Any] = []

    def begin(reactor: Any) -> Deferred[None]:
        over: Deferred[None] = Deferred()
        working = Deferred.fromCoroutine(_as_coroutine(body(reactor)))

        def interrupted() -> Deferred[None] | None:
            if outcome:
                return None
            working.cancel()
            return over

        def ended(result: Any) -> None:
            outcome.append(result)
            over.callback(None)

        reactor.addSystemEventTrigger("before", "shutdown", interrupted)
        finished: Deferred[None] = working.addBoth(ended)
        return finished

    try:
        task.react(begin)
    except SystemExit as end:
        if end.code:
            raise
    result = outcome[0]
    if isinstance(result, Failure):
        raise _foreseen(result)
    answer: T = result
    return answer


def _progress(sentence: str) -> None:
    """Tell of what takes long, such as making a cluster, without getting into the output."""
    click.echo(sentence, err=True)


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _foreseen(failure: Failure) -> BaseException:
    """The error as a sentence and an exit code, if it is of a kind that can happen to anyone."""
    error = failure.value
    assert error is not None
    match error:
        case CancelledError():
            return SystemExit(INTERRUPTED)
        case click.ClickException() | SystemExit():
            return error
        case SettingsError():
            return BadSettings(str(error))
        case DatabaseUnavailable() | EmbeddedPostgresError():
            return Unavailable(f"The database is not available: {error}")
        case OSError() if error.errno != errno.EPIPE:  # click ends quietly when a reader has gone
            return CommandFailed(f"{error}.")
        case AccountError() | ArchiveError() | SchemaError():
            return CommandFailed(str(error))
        case DatabaseError():
            return CommandFailed(f"The database refused: {error} (SQLSTATE {error.sqlstate})")
        case _:
            return error


@asynccontextmanager
async def _parameters(
    settings: Settings, reactor: Any, *, make: bool = False
) -> AsyncIterator[Mapping[str, str]]:
    """Where the host's database is; the embedded server runs at least until the end of the block."""
    require_database(settings)
    if settings.connection is not None:
        yield settings.connection.parameters()
        return

    attached = await attach_or_start(settings.data.directory, reactor=reactor, progress=_progress, make=make)
    try:
        yield attached.parameters
    finally:
        await attached.stop()


@asynccontextmanager
async def _database(parameters: Mapping[str, str], reactor: Any) -> AsyncIterator[Database]:
    """A connected database. One try tells more than a wait: a host tries on, a command reports why not."""
    try:
        probe = await Dialer(parameters, reactor, CONNECT_TIMEOUT, STATEMENT_TIMEOUT).dial(lambda *_: None)
    except DatabaseError as error:
        where = " ".join(f"{name}={parameters[name]}" for name in _PLACE if parameters.get(name))
        raise Unavailable(f"The database is not available ({where}): {error}") from error
    probe.close()
    database = Database(
        parameters,
        reactor=reactor,
        size=1,
        connect_timeout=CONNECT_TIMEOUT,
        statement_timeout=STATEMENT_TIMEOUT,
    )
    database.start()
    try:
        yield database
    finally:
        await database.stop()


async def _require_schema(database: Database) -> None:
    """Refuse a database that was not prepared, or by a newer version."""
    found = await schema.status(database)
    if found.version > found.latest:
        raise CommandFailed(
            f"The database has migration {found.version} of schema relaymail, and this version knows "
            f"them up to {found.latest}: upgrade relaymail."
        )
    if found.pending:
        raise CommandFailed(
            f"The database lacks {', '.join(found.pending)} of schema relaymail: run `relaymail db upgrade`."
        )
    if found.public == "missing":
        raise CommandFailed(
            "The shared tables (Users, Emails, ...) do not exist: start the API once, which makes them, or "
            "run `relaymail db upgrade --standalone` for a database without an API."
        )
