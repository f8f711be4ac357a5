"""Deleting what is done with, in small batches and off the hot path."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.store import outbox
from relaymail.store.database import Database, DatabaseError

log = Logger()

INTERVAL: Final = 3600.0
"""Seconds between purges."""
BATCH: Final = 1000
"""Rows deleted by one statement."""
DAY: Final = 86400.0

_EVENTS: Final = (
    "DELETE FROM relaymail.event WHERE (message_id, id) IN (SELECT message_id, id FROM relaymail.event"
    " WHERE at < now() - make_interval(secs => %s) LIMIT %s)"
)
_MESSAGES: Final = (
    "DELETE FROM relaymail.message WHERE id IN (SELECT id FROM relaymail.message"
    " WHERE received_at < now() - make_interval(secs => %s) LIMIT %s)"
)


class Retention:
    """Purges once an hour. Ages are in seconds; ``messages`` of ``None`` keeps them for ever."""

    def __init__(
        self, database: Database, *, events: float, outbox: float, messages: float | None, reactor: Any
    ) -> None:
        self._database = database
        self._events = events
        self._outbox = outbox
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
        """Delete what is over age; returns how many rows of what."""
        purged = {
            "events": await self._delete("retention.events", _EVENTS, self._events),
            "outbox": await outbox.purge(self._database, self._outbox / DAY),
        }
        if self._messages is not None:
            purged["messages"] = await self._delete("retention.messages", _MESSAGES, self._messages)
        return purged

    async def _delete(self, name: str, sql: str, age: float) -> int:
        total = 0
        while deleted := await self._database.execute(name, sql, (age, BATCH)):
            total += deleted
        return total

    async def _purge(self) -> None:
        try:
            purged = await self.purge()
        except DatabaseError as error:
            log.warn("Purging failed and will be tried again: {why}", why=str(error))
            return
        if any(purged.values()):
            log.info("Purged what is over age: {purged}", purged=purged)
