"""Has reports made that are owed: at a hint, and every few seconds for what another host has left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from relaymail.store.database import DatabaseError
from relaymail.store.waker import Waker

log = Logger()


class ReportRounds:
    """Makes them one round behind the other, from :meth:`start` to :meth:`stop`.

    It does so where mail is not sent on, too: mail between local users owes reports as well (NOTIFY=SUCCESS),
    and is kept until they are made.

    :param make: makes what is owed by now.
    :param every: seconds after which there is a round without a hint.
    """

    def __init__(self, make: Callable[[], Awaitable[Any]], *, reactor: Any, every: float) -> None:
        self._make = make
        self._reactor = reactor
        self._every = every
        self._waker = Waker(reactor)
        self._stopping = False
        self._loop: Deferred[None] | None = None

    def start(self) -> None:
        """Begin, at once; the database may be away."""
        self._loop = Deferred.fromCoroutine(self._run())

    def hint(self) -> None:
        """A report is owed. Cheap: the round begins in a later turn, or behind the one under way."""
        self._waker.wake()

    async def stop(self, limit: float) -> None:
        """Begin no more, and wait for the round under way, at most ``limit`` seconds."""
        self._stopping = True
        self._waker.wake()
        if self._loop is None:
            return
        over: Deferred[None] = Deferred()
        self._loop.addCallback(over.callback)
        try:
            await over.addTimeout(limit, self._reactor)
        except DeferredTimeout:
            log.debug("Reports are still being made; another host or the next start makes them")

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._make()
            except DatabaseError as error:
                log.debug("Reports could not be made: {why}", why=str(error))
            except Exception:
                log.failure("Reports could not be made")
            if not self._stopping:
                await self._waker.sleep(self._every)
