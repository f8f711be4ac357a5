"""One connection to PostgreSQL, and one statement at a time on it.

This is the only module that imports txpostgres and psycopg2. Of txpostgres it uses the ``Connection`` for
connecting and for its place in the reactor; statements are driven here, because its cursor costs four
``epoll_ctl`` calls and two turns of the reactor for each, and its cancellation blocks. A connection that
failed in any way is closed and never used again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from txpostgres import txpostgres

from relaymail.store.errors import DatabaseError, DatabaseUnavailable

_BYTEA = 17
_POLL_OK = psycopg2.extensions.POLL_OK
_POLL_WRITE = psycopg2.extensions.POLL_WRITE

_CONNECTION_STATES = ("57P01", "57P02", "57P03", "57P05", "53300", "25P03")
"""SQLSTATEs beside class 08 with which the server ends a connection or refuses one."""

_VALUE = re.compile(r'".*"', re.DOTALL)


def _to_bytes(value: str | None, cursor: Any) -> bytes | None:
    view = psycopg2.BINARY(value, cursor)
    return None if view is None else bytes(view)


_AS_BYTES = psycopg2.extensions.new_type((_BYTEA,), "BYTES", _to_bytes)

psycopg2.extras.register_uuid()


def translate(error: BaseException) -> BaseException:
    """The project's exception for one of the driver's; anything else comes back as it is."""
    if isinstance(error, psycopg2.Error):
        state = error.pgcode
        if state is None and isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError)):
            return DatabaseUnavailable(_first_line(error), None)
        message = (error.diag.message_primary if error.diag else None) or _first_line(error)
        if state is not None and (state.startswith("08") or state in _CONNECTION_STATES):
            return DatabaseUnavailable(message, state)
        if state is not None and state.startswith("22"):
            # Data exceptions quote the offending value: "invalid input syntax for type uuid: ..."
            message = _VALUE.sub('"..."', message)
        return DatabaseError(message, state)
    if isinstance(error, ValueError):
        # The driver's own refusal of a NUL or of a lone surrogate; its text quotes the value
        return DatabaseError("a text value cannot be encoded", "22021")
    return error


def _of_connecting(failure: Failure) -> DatabaseError:
    assert failure.value is not None
    translated = translate(failure.value)
    if isinstance(translated, DatabaseError):
        return translated
    return DatabaseUnavailable(f"cannot connect: {_first_line(translated)}")


def _failure(error: BaseException) -> Failure:
    return Failure(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class Answer:
    """What came back for one statement."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """All rows; empty for a statement without a result."""
        if self._cursor.description is None:
            return []
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    @property
    def count(self) -> int:
        """How many rows the statement touched or returned."""
        count: int = self._cursor.rowcount
        return count

    @property
    def status(self) -> str:
        """The command tag, such as ``COMMIT``."""
        status: str = self._cursor.statusmessage
        return status


class Connection(txpostgres.Connection):  # type: ignore[misc]
    """One session with the server, from :meth:`open` to :meth:`close`; never opened twice.

    :param on_lost: called once, with the reason, when the connection ends for any reason but :meth:`close`
        of its owner; the connection is already closed then.
    :param on_notify: called with the channel and the payload of each notification.
    """

    def __init__(
        self,
        reactor: Any,
        on_lost: Callable[[Connection, DatabaseError], None],
        on_notify: Callable[[str, str], None] | None = None,
    ) -> None:
        super().__init__(reactor)
        self._on_lost = on_lost
        self._on_notify = on_notify
        self._ready = False
        self._sending = False
        self._descriptor: int | None = None
        self._cursor: Any = None
        self._answer: Deferred[Answer] | None = None
        self._deadline: Any = None
        self.reason: DatabaseError | None = None
        self.abandoned = False
        """Whether it ended by our own wish, and not because something is wrong."""

    @property
    def alive(self) -> bool:
        """Whether a statement may be sent."""
        return self._ready

    def open(self, parameters: Mapping[str, str], timeout: float) -> Deferred[None]:
        """Connect within ``timeout`` seconds.

        :raises DatabaseUnavailable: it took longer, or the server cannot be reached.
        :raises DatabaseError: the server refused (wrong password, no such database).
        """
        given_up = False

        def give_up(late: bool) -> None:
            nonlocal given_up
            given_up = True
            if timer.active():
                timer.cancel()
            self._abort()
            if late:
                opened.errback(DatabaseUnavailable(f"no connection within {timeout:g} s"))

        def finish(result: Any) -> None:
            if given_up:
                return
            timer.cancel()
            if isinstance(result, Failure):
                self._abort()
                opened.errback(_of_connecting(result))
                return
            self._take_over()
            opened.callback(None)

        opened: Deferred[None] = Deferred(lambda _: give_up(late=False))
        timer = self.reactor.callLater(timeout, give_up, late=True)

        try:
            self.connect(**parameters).addBoth(finish)
        except psycopg2.Error as error:
            finish(_failure(error))
        return opened

    def _take_over(self) -> None:
        """Watch the socket by a descriptor of our own from here on.

        libpq closes its descriptor when it finds the connection lost, and a closed one cannot be taken out of
        the reactor: it would stay there, and the next connection with its number would never be read.
        """
        psycopg2.extensions.register_type(_AS_BYTES, self._connection)
        self.reactor.removeReader(self)
        self._descriptor = os.dup(self._connection.fileno())
        self._ready = True
        self.reactor.addReader(self)

    def fileno(self) -> int:
        """Called by the reactor."""
        if self._descriptor is not None:
            return self._descriptor
        descriptor: int = super().fileno()
        return descriptor

    def run(self, sql: str, params: Sequence[object] = ()) -> Deferred[Answer]:
        """Send one statement (or several, joined by ``;``: the last one's answer counts).

        A ``%`` needs doubling only where there are parameters.

        :raises RuntimeError: another statement is still running here.
        :raises DatabaseUnavailable: the connection is or gets lost. It is closed then.
        :raises DatabaseError: the server refused the statement. The connection stays usable.
        """
        if self._answer is not None:
            raise RuntimeError("a statement is already running on this connection")
        if not self._ready:
            raise self.reason or DatabaseUnavailable("the connection is closed")
        cursor = self._connection.cursor()
        try:
            cursor.execute(sql, params or None)
        except (psycopg2.Error, ValueError) as error:
            translated = translate(error)
            if isinstance(translated, DatabaseUnavailable):
                self._lose(translated)
            raise translated from None
        self._cursor = cursor
        answer: Deferred[Answer] = Deferred(self._cancelled)
        self._answer = answer
        self._sending = True
        self._advance()
        self._sending = False
        return answer

    def set_deadline(self, at: float) -> None:
        """Close the connection at ``at`` (the reactor's seconds), failing what runs on it."""
        self._deadline = self.reactor.callLater(max(0.0, at - self.reactor.seconds()), self._expire)

    def clear_deadline(self) -> None:
        """The call that had the deadline is over."""
        timer, self._deadline = self._deadline, None
        if timer is not None and timer.active():
            timer.cancel()

    def _expire(self) -> None:
        self._lose(DatabaseUnavailable("no answer before the deadline"))

    def _cancelled(self, _: Deferred[Answer]) -> None:
        # The protocol has no way to abandon a statement but to abandon its connection
        self._answer = None
        self.abandoned = True
        self._lose(DatabaseUnavailable("cancelled"))

    def _advance(self) -> None:
        try:
            state = self._connection.poll()
        except psycopg2.Error as error:
            translated = translate(error)
            # The server's farewell ("terminating connection ...") comes before the end itself
            if self._connection.closed or isinstance(translated, DatabaseUnavailable):
                self._lose(translated)
            else:
                self._settle(_failure(translated))
            return
        if state == _POLL_OK:
            self._settle(Answer(self._cursor))
        elif state == _POLL_WRITE:
            self.reactor.addWriter(self)

    def _settle(self, result: Any) -> None:
        if self._sending:
            # The server was quicker than we are; who waits must not be called back from within its own call
            self.reactor.callLater(0, self._fire_if_due, self._answer, result)
        else:
            self._fire(result)

    def _fire_if_due(self, answer: Deferred[Answer], result: Any) -> None:
        if answer is self._answer:
            self._fire(result)

    def _fire(self, result: Any) -> None:
        answer, self._answer, self._cursor = self._answer, None, None
        if self._connection.notifies:
            self._dispatch()
        if answer is not None:
            if isinstance(result, Failure):
                answer.errback(result)
            else:
                answer.callback(result)

    def doRead(self) -> None:
        """Called by the reactor."""
        if not self._ready:
            # Past txpostgres' own: where libpq found the server gone and closed the socket, that watches it
            # on and fails in the reactor. The polling below it watches what there is to wait for
            super(txpostgres.Connection, self).doRead()
        elif self._answer is not None:
            self._advance()
        else:
            self.check()

    def doWrite(self) -> None:
        """Called by the reactor."""
        if not self._ready:
            super().doWrite()
            return
        self.reactor.removeWriter(self)
        if self._answer is not None:
            self._advance()

    def probe(self) -> None:
        """Notice now if an idle connection has ended, without waiting for the reactor's turn."""
        # The first look may only find the server's farewell; the second then finds the end
        self.check()
        self.check()

    def check(self) -> None:
        """Read what an idle connection has for us: a notification, or its end."""
        if not self._ready or self._answer is not None:
            return
        try:
            self._connection.poll()
        except psycopg2.Error as error:
            self._lose(error)
            return
        if self._connection.notifies:
            self._dispatch()

    def _dispatch(self) -> None:
        notifies = self._connection.notifies[:]
        self._connection.notifies.clear()
        if self._on_notify is not None:
            for notify in notifies:
                self.reactor.callLater(0, self._on_notify, notify.channel, notify.payload)

    def connectionLost(self, reason: Any) -> None:
        """Called by the reactor, and by txpostgres while it closes."""
        if self._ready:
            self._lose(DatabaseUnavailable("the connection was closed"))
        else:
            super().connectionLost(reason)

    def _lose(self, error: BaseException) -> None:
        if self.reason is not None or not self._ready:
            return
        translated = translate(error)
        assert isinstance(translated, DatabaseError)
        self.reason = translated
        self._abort()
        answer, self._answer, self._cursor = self._answer, None, None
        self._on_lost(self, translated)
        if answer is not None:
            answer.errback(as_unavailable(translated))

    def _abort(self) -> None:
        """Close the socket without a word to the owner."""
        self._ready = False
        self.clear_deadline()
        if self._descriptor is not None:
            self.reactor.removeReader(self)
            self.reactor.removeWriter(self)
            os.close(self._descriptor)
            self._descriptor = None
        if self._connection is not None:
            super().close()

    def close(self) -> None:
        """End the session. A statement still running fails with :class:`DatabaseUnavailable`."""
        self.abandoned = True
        self._lose(DatabaseUnavailable("the connection was closed"))


def as_unavailable(error: DatabaseError) -> DatabaseUnavailable:
    """The same failure, as one of the connection."""
    if isinstance(error, DatabaseUnavailable):
        return error
    return DatabaseUnavailable(str(error), error.sqlstate)
