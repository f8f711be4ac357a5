"""For commands beside a host: use the server it runs, or run it for as long as the command takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from relaymail.store.embedded.errors import EmbeddedPostgresBusy
from relaymail.store.embedded.folder import COMMAND, HOST, Folder
from relaymail.store.embedded.postmaster import READY, find_running
from relaymail.store.embedded.server import EmbeddedPostgres, parameters_for

PATIENCE = 60.0
"""Seconds to wait for another command to end, or for a host that is just starting."""
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Attached:
    """A server to use; call ``stop`` when done, which ends it only if it was started for this."""

    parameters: dict[str, str]
    stop: Callable[[], Awaitable[None]]


def running_parameters(directory: Path) -> dict[str, str] | None:
    """libpq keywords of the server that runs on the folder ``directory`` right now; None if none does."""
    running = find_running(Folder(directory.resolve()).data)
    if running is None or running.status != READY:
        return None
    return parameters_for(running.sockets, running.port)


async def attach_or_start(
    directory: Path, *, reactor: Any, progress: Callable[[str], None] | None = None, make: bool = False
) -> Attached:
    """The running host's server; if no host runs, one of our own: then commands take turns.

    :param make: whether to make a database where there is none.
    :raises EmbeddedPostgresAbsent: there is none, and none may be made.
    :raises EmbeddedPostgresError: it cannot be started, or the host's has not come up for a minute.
    """
    limit = reactor.seconds() + PATIENCE
    while True:
        own = EmbeddedPostgres(directory, reactor=reactor, progress=progress, kind=COMMAND, make=make)
        try:
            return Attached(await own.start(), own.stop)
        except EmbeddedPostgresBusy as error:
            if error.holder == HOST and (parameters := running_parameters(directory)) is not None:
                return Attached(parameters, _nothing)
            if reactor.seconds() >= limit:
                raise
        pause: Deferred[None] = Deferred()
        reactor.callLater(_LOOK, pause.callback, None)
        await pause


async def _nothing() -> None:
    """The host's server is the host's to stop."""
