"""Writes down what became of claimed rows: many in one statement, and again until the database has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relaymail.store import outbox
from relaymail.store.database import Database, DatabaseError
from relaymail.store.outbox import FailedRow, OutboxRow

log = Logger()

T = TypeVar("T")

GATHER = 0.05
"""Seconds for which outcomes are gathered before they are written."""

BATCH = 50
"""So many are written without waiting longer."""

AGAIN = 1.0
"""Seconds until the next try after the database did not take them."""


class Ledger:
    """Gathers outcomes and writes them in batches.

    ``crash`` is called with the name of a point at which tests kill the process; ``due`` is told of rows that
    are not settled for good, once this is written, in how many seconds they are due; ``written`` is called
    after each batch.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Any,
        crash: Callable[[str], None],
        due: Callable[[float], None],
        written: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._crash = crash
        self._due = due
        self._written = written
        self._sent: list[OutboxRow] = []
        self._failed: list[FailedRow] = []
        self._dead: list[FailedRow] = []
        self._unused: list[OutboxRow] = []
        self._timer: Any = None
        self._writing: Deferred[None] | None = None
        self._closed = False
        self.failing = False
        """Whether the last batch could not be written: what cannot be settled must not be sent."""

    def __len__(self) -> int:
        return len(self._sent) + len(self._failed) + len(self._dead) + len(self._unused)

    def sent(self, row: OutboxRow) -> None:
        """The API has it."""
        self._sent.append(row)
        self._gather()

    def failed(self, row: OutboxRow, error: str, delay: float) -> None:
        """An attempt failed; the row is due again ``delay`` seconds after this is written."""
        self._failed.append(FailedRow(row, error, delay))
        self._gather()

    def dead(self, row: OutboxRow, error: str) -> None:
        """The last attempt failed."""
        self._dead.append(FailedRow(row, error))
        self._gather()

    def unused(self, row: OutboxRow) -> None:
        """The row was claimed and not tried."""
        self._unused.append(row)
        self._gather()

    async def flush(self) -> bool:
        """Write what there is, now. Returns whether the database has it all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._writing is not None or len(self):
            if self._writing is None:
                self._write()
            else:
                await self._writing
                if self.failing:
                    return False
        return True

    def close(self) -> None:
        """Take and write no more: what is left comes back when its leases end."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sent.clear()
        self._failed.clear()
        self._dead.clear()
        self._unused.clear()

    def _gather(self) -> None:
        if self._writing is not None or self._closed:
            return
        if self._timer is None:
            self._timer = self._clock.callLater(GATHER, self._gathered)
        elif len(self) >= BATCH and not self.failing:
            self._timer.reset(0)

    def _gathered(self) -> None:
        self._timer = None
        self._write()

    def _write(self) -> None:
        done: Deferred[None] = Deferred()
        self._writing = done
        Deferred.fromCoroutine(self._write_all()).addBoth(self._wrote, done)

    def _wrote(self, _: object, done: Deferred[None]) -> None:
        self._writing = None
        done.callback(None)
        if len(self) and self._timer is None and not self._closed:
            self._timer = self._clock.callLater(AGAIN if self.failing else GATHER, self._gathered)
        self._written()

    async def _write_all(self) -> None:
        try:
            if self._sent:
                self._crash("before-mark-sent")
                await self._settle(self._sent, outbox.mark_sent)
            if self._failed:
                delays = [failure.delay for failure in self._failed]
                await self._settle(self._failed, outbox.defer)
                for delay in delays:
                    self._due(delay)
            await self._settle(self._dead, outbox.bury)
            if self._unused:
                await self._settle(self._unused, outbox.release)
                self._due(0.0)
        except DatabaseError as error:
            if not self.failing:
                log.warn(
                    "Outcomes of notifications could not be written and are kept: {error}",
                    error=type(error).__name__,
                )
            self.failing = True
        except Exception:
            log.failure("Outcomes of notifications could not be written and are kept")
            self.failing = True
        else:
            self.failing = False

    async def _settle(
        self, rows: list[T], statement: Callable[[Database, Sequence[T]], Awaitable[int]]
    ) -> None:
        """Write one kind; on an error the rows stay in their list, in front of those added meanwhile."""
        count = len(rows)
        if not count:
            return
        held = await statement(self._database, rows[:count])
        if held < count:
            log.info(
                "{count} notifications had passed to another worker before they were settled",
                count=count - held,
            )
        del rows[:count]
