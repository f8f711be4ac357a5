"""Deleting what is done with, in small batches and off the hot path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.store import mta_sts, outbox, suppression
from relaymail.store.database import Database, DatabaseError
from relaymail.store.queue_purge import purge_messages, purge_rows

log = Logger()

INTERVAL: Final = 3600.0
"""Seconds between purges."""
BATCH: Final = 1000
"""Rows deleted by one statement."""
DAY: Final = 86400.0
EXPIRED_POLICIES: Final = 7.0
"""Days for which an MTA-STS policy that does not count any more can still be looked at."""

_EVENTS: Final = (
    "DELETE FROM relaymail.event WHERE (message_id, id) IN (SELECT message_id, id FROM relaymail.event"
    " WHERE at < now() - make_interval(secs => %s) LIMIT %s)"
)


class Retention:
    """Purges once an hour. Ages are in seconds; ``messages`` of ``None`` keeps them for ever.

    A message that is still to be sent, reported on or released is kept, however old it is.
    """

    def __init__(
        self,
        database: Database,
        *,
        events: float,
        outbox: float,
        queue: float,
        messages: float | None,
        reactor: Any,
    ) -> None:
        self._database = database
        self._events = events
        self._outbox = outbox
        self._queue = queue
        self._messages = messages
        self._loop = LoopingCall(self._purge)
        self._loop.clock = reactor

    def start(self) -> None:
        """Purge an hour from now, and every hour."""
        self._loop.start(INTERVAL, now=False)

    async def stop(self) -> None:
        """Purge no more; one under way ends with the database."""
        if self._loop.running:
            self._loop.stop()

    async def purge(self) -> dict[str, int]:
        """Delete what is over age; returns how many rows of what.

        What cannot be purged keeps nothing else from it: it is left out, and the log says why.
        """
        purges: dict[str, Callable[[], Awaitable[int]]] = {
            "events": lambda: self._delete("retention.events", _EVENTS, self._events),
            "outbox": lambda: outbox.purge(self._database, self._outbox / DAY),
            "queue": lambda: purge_rows(self._database, self._queue, BATCH),
            "suppressions": lambda: suppression.purge(self._database, BATCH),
            "policies": lambda: mta_sts.purge(self._database, EXPIRED_POLICIES, BATCH),
        }
        if self._messages is not None:
            age = self._messages
            purges["messages"] = lambda: purge_messages(self._database, age, BATCH)
        purged: dict[str, int] = {}
        for what, purge in purges.items():
            try:
                purged[what] = await purge()
            except DatabaseError as error:
                log.warn(
                    "Purging {what} failed and will be tried again: {why}",
                    what=what,
                    why=f"{error} ({error.sqlstate})" if error.sqlstate else str(error),
                )
            except Exception:
                # Raised, it would end the loop
                log.failure("Purging {what} failed and will be tried again", what=what)
        return purged

    async def _delete(self, name: str, sql: str, age: float) -> int:
        total = 0
        while deleted := await self._database.execute(name, sql, (age, BATCH)):
            total += deleted
        return total

    async def _purge(self) -> None:
        purged = await self.purge()
        if any(purged.values()):
            log.info("Purged what is over age: {purged}", purged=purged)
