"""Has reports made that are owed where no worker of the queue does: where mail is not sent on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.store.database import DatabaseError

log = Logger()


class ReportRounds:
    """Mail between local users owes reports as well (NOTIFY=SUCCESS), and is kept until they are made.

    :param make: makes what is owed by now.
    :param every: seconds between two rounds.
    """

    def __init__(self, make: Callable[[], Awaitable[Any]], *, reactor: Any, every: float) -> None:
        self._make = make
        self._reactor = reactor
        self._every = every
        self._loop = LoopingCall(self._round)
        self._loop.clock = reactor
        self._ended: Deferred[Any] | None = None

    def start(self) -> None:
        """Begin, at once; the database may be away."""
        self._ended = self._loop.start(self._every)

    async def stop(self, limit: float) -> None:
        """Begin no more, and wait for the round under way, at most ``limit`` seconds."""
        if self._loop.running and self._ended is not None:
            self._loop.stop()
            try:
                await self._ended.addTimeout(limit, self._reactor)
            except DeferredTimeout:
                log.debug("Reports are still being made; another host or the next start makes them")

    async def _round(self) -> None:
        try:
            await self._make()
        except DatabaseError as error:
            log.debug("Reports could not be made: {why}", why=str(error))
        except Exception:
            log.failure("Reports could not be made")
