"""The host's database, as a check comes to it: reached once, and told exactly why if it is not."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relaymail.doctor.aside import aside
from relaymail.doctor.deadline import within
from relaymail.settings import Settings, SettingsError, require_database
from relaymail.store.database import Database, DatabaseUnavailable
from relaymail.store.dialing import Dialer
from relaymail.store.embedded import EmbeddedPostgresAbsent, EmbeddedPostgresError, attach_or_start

CONNECT_LIMIT = 5.0
"""Seconds for one address, and for resolving its name."""
STATEMENT_LIMIT = 8.0
"""Seconds for one question."""
CONNECTIONS = 2


class NoDatabase(Exception):
    """There is no database to be had; the text is a sentence."""


class NotNamed(NoDatabase):
    """The settings name no database."""


class NotMadeYet(NoDatabase):
    """The embedded database does not exist before the host's first start."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """A database that was reached."""

    database: Database
    parameters: Mapping[str, str]
    seconds: float
    """How long connecting took."""
    _release: Callable[[], Awaitable[None]]

    async def close(self) -> None:
        """Close the connections, and stop a server that was started for this."""
        await self.database.stop()
        await self._release()


async def open_database(settings: Settings, reactor: Any) -> DataSource:
    """Reach the host's database.

    An embedded one that does not run is started for as long as it is needed, but never made.

    :raises NoDatabase: the settings name none, or the embedded one is not there or does not start.
    :raises DatabaseError: the server cannot be reached or must not be used.
    """
    parameters, release = await _parameters(settings, reactor)
    try:
        await _resolve(parameters, reactor)
        began = reactor.seconds()
        probe = await Dialer(parameters, reactor, CONNECT_LIMIT, STATEMENT_LIMIT).dial(lambda *_: None)
        seconds = reactor.seconds() - began
        probe.close()
        database = Database(
            parameters,
            reactor=reactor,
            size=CONNECTIONS,
            connect_timeout=CONNECT_LIMIT,
            statement_timeout=STATEMENT_LIMIT,
        )
        database.start()
    except BaseException:
        await release()
        raise
    return DataSource(database, parameters, seconds, release)


async def _parameters(
    settings: Settings, reactor: Any
) -> tuple[Mapping[str, str], Callable[[], Awaitable[None]]]:
    try:
        require_database(settings)
    except SettingsError:
        raise NotNamed("the settings name no database, see check.settings.valid") from None
    if settings.connection is not None:
        return settings.connection.parameters(), _nothing
    try:
        attached = await attach_or_start(settings.data.directory, reactor=reactor)
    except EmbeddedPostgresAbsent:
        raise NotMadeYet(
            "the embedded database does not exist yet: the host's first start makes it"
        ) from None
    except EmbeddedPostgresError as error:
        raise NoDatabase(str(error)) from None
    return attached.parameters, attached.stop


async def _resolve(parameters: Mapping[str, str], reactor: Any) -> None:
    """Say it where no name of the server resolves, which the driver would take for no address to try."""
    hosts = [host for host in parameters.get("host", "").split(",") if host]
    names = [host for host in hosts if not host.startswith(("/", "@"))]
    if len(names) < len(hosts) or not names or parameters.get("hostaddr"):
        return
    why = ""
    for name in names:
        try:
            await within(reactor, CONNECT_LIMIT, aside(reactor, socket.getaddrinfo, name, None))
        except TimeoutError:
            why = f"no answer within {CONNECT_LIMIT:g} s"
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "no name that could be looked up"
        else:
            return
    raise DatabaseUnavailable(f"the host name {', '.join(names)} does not resolve: {why}")


async def _nothing() -> None:
    """The server is not ours to stop."""
