"""The database's one small face: query, execute, transaction, listen, ping.

Every call has a deadline that covers waiting for a connection, and is answered by then whatever the server
does. Connections are opened as they are needed, kept, and replaced when they are lost.
"""

# Deadlines are passed in: asyncio.timeout, which the rule wants, is no part of Twisted
# ruff: noqa: ASYNC109

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from relaymail.store.connection import Answer, Connection, as_unavailable
from relaymail.store.dialing import Dialer, ServerRefused
from relaymail.store.errors import CommitUnknown, DatabaseError, DatabaseUnavailable
from relaymail.store.listener import Listener

__all__ = [
    "CommitUnknown",
    "Database",
    "DatabaseError",
    "DatabaseUnavailable",
    "PoolUsage",
    "Transaction",
]

log = Logger()

T = TypeVar("T")

Observe = Callable[[str, float, BaseException | None], None]

FIRST_WAIT = 0.1
"""Seconds before the first new attempt to connect; doubled each time, with up to half of it in jitter."""
LONGEST_WAIT = 5.0


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """Connections in use, open, allowed at most; calls that wait for one."""

    active: int
    open: int
    maximum: int
    waiting: int


class Database:
    """A pool of ``size`` connections.

    :param parameters: libpq keywords; several hosts are tried in order, the first that takes writes is used.
    :param connect_timeout: seconds for one attempt to connect to one address.
    :param statement_timeout: seconds a call may take unless it says otherwise, waiting included; the server
        ends a statement after the same time.
    :param observe: called with the name, the seconds and the failure of each statement and transaction.
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        *,
        reactor: Any,
        size: int = 4,
        connect_timeout: float = 5.0,
        statement_timeout: float = 30.0,
        observe: Observe | None = None,
    ) -> None:
        self._reactor = reactor
        self._size = size
        self._limit = statement_timeout
        self._observe = observe
        self._dialer = Dialer(parameters, reactor, connect_timeout, statement_timeout)
        self._listener = Listener(self._dialer, reactor, connect_timeout)
        self._running = False
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiters: deque[Deferred[Connection]] = deque()
        self._serving = False
        self._connecting: Deferred[None] | None = None
        self._away_since: float | None = None
        self.refused: str | None = None
        """Why the server must not be used, as a sentence; None while nothing speaks against it."""

    def start(self) -> None:
        """Begin connecting in the background, for as long as it takes."""
        self._running = True
        self._connect_if_needed()
        self._listener.start()

    async def stop(self) -> None:
        """Close everything. Calls that still run or wait fail with :class:`DatabaseUnavailable`."""
        self._running = False
        await self._listener.stop()
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

    @property
    def available(self) -> bool:
        """Whether there is at least one open connection."""
        return bool(self._open)

    async def query(
        self, name: str, sql: str, params: Sequence[object] = (), *, timeout: float | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction and return its rows.

        A ``SELECT`` whose connection was lost under it is sent once more on another one; see :meth:`execute`
        for all else. A ``%`` in ``sql`` needs doubling only where there are ``params``.

        :param timeout: seconds, waiting for a connection included.
        :raises DatabaseUnavailable: no connection or no answer in time.
        :raises DatabaseError: the server refused the statement (``sqlstate`` 57014: it took too long there).
        """
        return (await self._autocommit(name, sql, params, timeout)).rows

    async def execute(
        self, name: str, sql: str, params: Sequence[object] = (), *, timeout: float | None = None
    ) -> int:
        """Run one statement outside a transaction and return the number of rows it touched.

        It is never sent twice: what was lost after sending may have been done.

        :raises CommitUnknown: the connection was lost, or the deadline passed, with the statement sent.
        :raises DatabaseUnavailable: it was not sent.
        :raises DatabaseError: the server refused the statement.
        """
        return (await self._autocommit(name, sql, params, timeout)).count

    async def _autocommit(
        self, name: str, sql: str, params: Sequence[object], timeout: float | None
    ) -> Answer:
        began = self._reactor.seconds()
        deadline = began + (self._limit if timeout is None else timeout)
        failure: BaseException | None = None
        try:
            connection = await self._take(deadline)
            try:
                return await connection.run(sql, params)
            except DatabaseUnavailable as error:
                if not _only_reads(sql):
                    raise CommitUnknown(str(error), error.sqlstate) from None
                if self._reactor.seconds() >= deadline or not self._running:
                    raise
            finally:
                self._give(connection)
            connection = await self._take(deadline)
            try:
                return await connection.run(sql, params)
            finally:
                self._give(connection)
        except BaseException as error:
            failure = error
            raise
        finally:
            if self._observe is not None:
                self._observe(name, self._reactor.seconds() - began, failure)

    async def transaction(
        self,
        name: str,
        body: Callable[[Transaction], Awaitable[T]],
        *,
        timeout: float | None = None,
        before_commit: Callable[[], None] | None = None,
    ) -> T:
        """Run ``body`` in one transaction, commit, and return what it returned.

        If ``body`` raises, the transaction is rolled back and the same exception raised. A ``body`` that
        swallowed the error of one of its statements cannot commit: ``DatabaseError`` 25P02.

        :param timeout: seconds for all of it, waiting for a connection and COMMIT included.
        :param before_commit: called right before COMMIT is sent; raising rolls back.
        :raises CommitUnknown: no answer to COMMIT.
        :raises DatabaseUnavailable: no connection or no answer in time; certainly not stored.
        :raises DatabaseError: the server refused a statement or the COMMIT; certainly not stored.
        """
        began = self._reactor.seconds()
        deadline = began + (self._limit if timeout is None else timeout)
        failure: BaseException | None = None
        try:
            transaction = Transaction(self, await self._take(deadline), deadline)
            try:
                result = await body(transaction)
                if before_commit is not None:
                    before_commit()
                await transaction._commit()
            except GeneratorExit:
                transaction._connection.close()
                raise
            except BaseException:
                await transaction._rollback()
                raise
            finally:
                transaction._over = True
                self._give(transaction._connection)
            return result
        except BaseException as error:
            failure = error
            raise
        finally:
            if self._observe is not None:
                self._observe(name, self._reactor.seconds() - began, failure)

    def listen(self, channel: str, callback: Callable[[str], None]) -> None:
        """Call back with the payload of each NOTIFY on ``channel``, from now on and over reconnects.

        Once after each (re)connect it calls with ``""``: something may have been missed. Runs on a
        connection of its own, beside the pool.
        """
        self._listener.add(channel, callback)

    async def ping(self, timeout: float = 5.0) -> float:
        """Seconds of a round trip on a connection of the pool; waiting for one is not part of them.

        :raises DatabaseUnavailable: no connection or no answer within ``timeout`` seconds.
        """
        connection = await self._take(self._reactor.seconds() + timeout)
        try:
            began: float = self._reactor.seconds()
            await connection.run("SELECT 1")
            took: float = self._reactor.seconds() - began
            return took
        finally:
            self._give(connection)

    async def _take(self, deadline: float) -> Connection:
        """A connection of our own until :meth:`_give`; it closes itself at ``deadline``."""
        if self._idle and not self._waiters:
            connection = self._idle.pop()
        else:
            connection = await self._wait(deadline)
        connection.set_deadline(deadline)
        return connection

    async def _wait(self, deadline: float) -> Connection:
        if not self._running:
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
            if timer.active():
                timer.cancel()

    def _too_late(self, waiter: Deferred[Connection]) -> None:
        self._waiters.remove(waiter)
        waiter.errback(DatabaseUnavailable("no connection became free before the deadline"))

    def _give(self, connection: Connection) -> None:
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
        if not self._running:
            return
        if not connection.abandoned:
            # Whatever ended this one may have ended the others: notice before one of them is given away
            for other in list(self._idle):
                other.probe()
            if not self._open:
                self._note_away(error)
        self._connect_if_needed()

    def _connect_if_needed(self) -> None:
        if self._running and self._connecting is None and self._wanted():
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
            self._give(connection)

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
            log.warn("The database is away, trying on: {reason}", reason=str(error))

    def _note_back(self) -> None:
        self.refused = None
        if self._away_since is not None:
            away, self._away_since = self._reactor.seconds() - self._away_since, None
            log.info("The database is back after {seconds:.1f} s", seconds=away)

    async def _sleep(self, seconds: float) -> None:
        timer: Any = None
        over: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._reactor.callLater(seconds, over.callback, None)
        await over


class Transaction:
    """What the body of :meth:`Database.transaction` gets: statements of one transaction, one at a time."""

    __slots__ = ("_began", "_connection", "_database", "_deadline", "_over")

    def __init__(self, database: Database, connection: Connection, deadline: float) -> None:
        self._database = database
        self._connection = connection
        self._deadline = deadline
        self._began = False
        self._over = False

    async def query(self, sql: str, params: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement.

        :raises DatabaseError: the server refused it; the transaction can only be rolled back now.
        :raises DatabaseUnavailable: the connection was lost or the deadline passed.
        """
        return (await self._run(sql, params)).rows

    async def execute(self, sql: str, params: Sequence[object] = ()) -> int:
        """The number of rows one statement touched; raises as :meth:`query` does."""
        return (await self._run(sql, params)).count

    async def _run(self, sql: str, params: Sequence[object]) -> Answer:
        if self._over:
            raise RuntimeError("the transaction is over")
        if self._began:
            return await self._connection.run(sql, params)
        # BEGIN travels with the first statement: one round trip less for each stored message
        self._began = True
        first = "BEGIN;" + sql
        try:
            return await self._connection.run(first, params)
        except DatabaseUnavailable:
            if self._database._reactor.seconds() >= self._deadline or not self._database._running:
                raise
        # Nothing was committed by the lost connection, and nothing but this statement was sent: start again
        self._database._give(self._connection)
        self._connection = await self._database._take(self._deadline)
        return await self._connection.run(first, params)

    async def _commit(self) -> None:
        if not self._began:
            return
        connection = self._connection
        if not connection.alive:
            raise as_unavailable(connection.reason or DatabaseUnavailable("the connection was lost"))
        try:
            answer = await connection.run("COMMIT")
        except DatabaseUnavailable as error:
            raise CommitUnknown(str(error), error.sqlstate) from None
        finally:
            self._began = False
        if answer.status != "COMMIT":
            raise DatabaseError("a statement of the transaction had failed; it was rolled back", "25P02")

    async def _rollback(self) -> None:
        if not self._began or not self._connection.alive:
            return
        try:
            await self._connection.run("ROLLBACK")
        except (DatabaseError, RuntimeError):
            # RuntimeError: the body left a statement running behind it
            self._connection.close()


def _only_reads(sql: str) -> bool:
    return sql.lstrip()[:6].upper() == "SELECT"
