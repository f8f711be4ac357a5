"""The database's one small face: query, execute, transaction, listen, ping.

Every call has a deadline that covers waiting for a connection, and is answered by then whatever the server
does. Connections are opened as they are needed, kept, and replaced when they are lost.
"""

# Deadlines are passed in: asyncio.timeout, which the rule wants, is no part of Twisted
# ruff: noqa: ASYNC109

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from relaymail.store.connection import Answer, Connection, as_unavailable
from relaymail.store.dialing import Dialer
from relaymail.store.errors import CommitUnknown, DatabaseError, DatabaseUnavailable
from relaymail.store.listener import Listener
from relaymail.store.pool import Pool, PoolUsage

__all__ = [
    "CommitUnknown",
    "Database",
    "DatabaseError",
    "DatabaseUnavailable",
    "PoolUsage",
    "Transaction",
]

T = TypeVar("T")

Observe = Callable[[str, float, BaseException | None], None]


class Database:
    """A pool of ``size`` connections.

    :param parameters: libpq keywords; several hosts are tried in order, the first that takes writes is used.
    :param connect_timeout: seconds for one attempt to connect to one address.
    :param statement_timeout: seconds a call may take unless it says otherwise, waiting included; the server
        ends a statement after the same time.
    :param observe: called with the name, the seconds and the failure of each statement and transaction.
    :param waited: called with the seconds that one of them had to wait for a connection.
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
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._reactor = reactor
        self._limit = statement_timeout
        self._observe = observe
        dialer = Dialer(parameters, reactor, connect_timeout, statement_timeout)
        self._pool = Pool(dialer, reactor, size, waited)
        self._listener = Listener(dialer, reactor, connect_timeout)

    def start(self) -> None:
        """Begin connecting in the background, for as long as it takes."""
        self._pool.start()
        self._listener.start()

    async def stop(self) -> None:
        """Close everything. Calls that still run or wait fail with :class:`DatabaseUnavailable`."""
        await self._listener.stop()
        self._pool.stop()

    @property
    def usage(self) -> PoolUsage:
        """How much of the pool is in use right now."""
        return self._pool.usage

    @property
    def available(self) -> bool:
        """Whether there is at least one open connection."""
        return self._pool.usage.open > 0

    @property
    def refused(self) -> str | None:
        """Why the server must not be used, as a sentence; None while nothing speaks against it."""
        return self._pool.refused

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
            connection = await self._pool.take(deadline)
            try:
                return await connection.run(sql, params)
            except DatabaseUnavailable as error:
                if not _only_reads(sql):
                    raise CommitUnknown(str(error), error.sqlstate) from None
                if self._reactor.seconds() >= deadline or not self._pool.running:
                    raise
            finally:
                self._pool.give(connection)
            connection = await self._pool.take(deadline)
            try:
                return await connection.run(sql, params)
            finally:
                self._pool.give(connection)
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
            transaction = Transaction(self._pool, await self._pool.take(deadline), deadline)
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
                self._pool.give(transaction._connection)
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
        connection = await self._pool.take(self._reactor.seconds() + timeout)
        try:
            began: float = self._reactor.seconds()
            await connection.run("SELECT 1")
            took: float = self._reactor.seconds() - began
            return took
        finally:
            self._pool.give(connection)


class Transaction:
    """What the body of :meth:`Database.transaction` gets: statements of one transaction, one at a time."""

    __slots__ = ("_began", "_connection", "_deadline", "_over", "_pool")

    def __init__(self, pool: Pool, connection: Connection, deadline: float) -> None:
        self._pool = pool
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
            if self._pool.seconds() >= self._deadline or not self._pool.running:
                raise
        # Nothing was committed by the lost connection, and nothing but this statement was sent: start again
        self._pool.give(self._connection)
        self._connection = await self._pool.take(self._deadline)
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
