"""The pool of connections: who gets one next, when another is opened, and what happens when one is lost."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from relaymail.store.connection import Connection
from relaymail.store.dialing import FIRST_WAIT, LONGEST_WAIT, Dialer, ServerRefused
from relaymail.store.errors import DatabaseError, DatabaseUnavailable

log = Logger()


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Connections in use, open, allowed at most; calls that wait for one."""

    active: int
    open: int
    maximum: int
    waiting: int


class Pool:
    """Up to ``size`` connections, opened when they are needed and kept until they are lost.

    One is always kept open or being opened, so that it is known whether the server is there. A loss and a
    recovery are one line each in the log, however many connections they concern.

    :param waited: called with the seconds that somebody had to wait for a connection, with success or not.
    """

    def __init__(
        self, dialer: Dialer, reactor: Any, size: int, waited: Callable[[float], None] = lambda seconds: None
    ) -> None:
        self._dialer = dialer
        self._reactor = reactor
        self._size = size
        self._waited = waited
        self.running = False
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiters: deque[Deferred[Connection]] = deque()
        self._serving = False
        self._connecting: Deferred[None] | None = None
        self._away_since: float | None = None
        self._away_reasons: set[str] = set()
        """What was logged of the present absence."""
        self.refused: str | None = None
        """Why the server must not be used, as a sentence; None while nothing speaks against it."""

    def start(self) -> None:
        """Begin connecting in the background."""
        self.running = True
        self._connect_if_needed()

    def stop(self) -> None:
        """Close everything; who uses a connection or waits for one gets :class:`DatabaseUnavailable`."""
        self.running = False
        if self._connecting is not None:
            self._connecting.cancel()
        while self._waiters:
            self._waiters.popleft().errback(DatabaseUnavailable("the database client was stopped"))
        for connection in list(self._open):
            connection.close()

    @property
    def usage(self) -> PoolUsage:
        """How much of the pool is in use right now."""
        opened = len(self._open)
        return PoolUsage(opened - len(self._idle), opened, self._size, len(self._waiters))

    def seconds(self) -> float:
        """The clock that deadlines are told in."""
        now: float = self._reactor.seconds()
        return now

    async def take(self, deadline: float) -> Connection:
        """A connection of one's own until :meth:`give`; it closes itself at ``deadline`` (:meth:`seconds`).

        :raises DatabaseUnavailable: none became free before ``deadline``, or the server is refused.
        """
        if self._idle and not self._waiters:
            connection = self._idle.pop()
        else:
            connection = await self._wait(deadline)
        connection.set_deadline(deadline)
        return connection

    async def _wait(self, deadline: float) -> Connection:
        began = self._reactor.seconds()
        if not self.running:
            raise DatabaseUnavailable("the database client is not running")
        if self.refused is not None and not self._open:
            raise DatabaseUnavailable(self.refused)
        waiter: Deferred[Connection] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        timer = self._reactor.callLater(max(0.0, deadline - self._reactor.seconds()), self._too_late, waiter)
        self._connect_if_needed()
        try:
            return await waiter
        finally:
            self._waited(self._reactor.seconds() - began)
            if timer.active():
                timer.cancel()

    def _too_late(self, waiter: Deferred[Connection]) -> None:
        self._waiters.remove(waiter)
        waiter.errback(DatabaseUnavailable("no connection became free before the deadline"))

    def give(self, connection: Connection) -> None:
        """Take back what :meth:`take` gave, alive or not; the call it was for is over."""
        connection.clear_deadline()
        if not connection.alive:
            return
        self._idle.append(connection)
        if self._serving:
            # A waiter was so quickly done that we are still inside its predecessor's return: no recursion
            return
        self._serving = True
        while self._waiters and self._idle:
            self._waiters.popleft().callback(self._idle.pop())
        self._serving = False

    def _lost(self, connection: Connection, error: DatabaseError) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self.running:
            return
        if not connection.abandoned:
            # Whatever ended this one may have ended the others: notice before one of them is given away
            for other in list(self._idle):
                other.probe()
            if not self._open:
                self._note_away(error)
        self._connect_if_needed()

    def _connect_if_needed(self) -> None:
        if self.running and self._connecting is None and self._wanted():
            self._connecting = Deferred.fromCoroutine(self._connect())
            self._connecting.addErrback(self._connector_failed).addBoth(self._connector_ended)

    def _connector_ended(self, _: None) -> None:
        self._connecting = None
        # A connection may have been lost in the very moment the last one wanted was open
        self._connect_if_needed()

    def _connector_failed(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            log.failure("Connecting to the database failed in an unforeseen way", failure=failure)

    def _wanted(self) -> bool:
        return not self._open or (len(self._open) < self._size and len(self._waiters) > 0)

    async def _connect(self) -> None:
        wait = FIRST_WAIT
        while self._wanted():
            try:
                connection = await self._dialer.dial(self._lost)
            except DatabaseError as error:
                self._not_connected(error)
                await self._sleep(wait * random.uniform(1.0, 1.5))
                wait = min(LONGEST_WAIT, wait * 2)
                continue
            wait = FIRST_WAIT
            self._note_back()
            self._open.add(connection)
            self.give(connection)

    def _not_connected(self, error: DatabaseError) -> None:
        if isinstance(error, ServerRefused):
            if self.refused != str(error):
                log.error("The database is refused: {reason}", reason=str(error))
            self.refused = str(error)
            while self._waiters:
                self._waiters.popleft().errback(DatabaseUnavailable(str(error)))
        if not self._open:
            self._note_away(error)

    def _note_away(self, error: DatabaseError) -> None:
        if self._away_since is None:
            self._away_since = self._reactor.seconds()
        # Why it ended is seldom why it stays away: a changed password only shows at the next login
        if str(error) not in self._away_reasons:
            self._away_reasons.add(str(error))
            log.warn("The database is away, trying on: {reason}", reason=str(error))

    def _note_back(self) -> None:
        self.refused = None
        self._away_reasons.clear()
        if self._away_since is not None:
            away, self._away_since = self._reactor.seconds() - self._away_since, None
            log.info("The database is back after {seconds:.1f} s", seconds=away)

    async def _sleep(self, seconds: float) -> None:
        timer: Any = None
        over: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._reactor.callLater(seconds, over.callback, None)
        await over
