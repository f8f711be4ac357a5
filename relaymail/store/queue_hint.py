"""Tells the workers of all hosts that something was queued: a hint, sent behind the commit."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relaymail.store.database import Database, DatabaseError
from relaymail.store.queue import CHANNEL

log = Logger()

PACE: Final = 0.1
"""Seconds between two notifications; a hint in between goes into the next."""
TIMEOUT: Final = 5.0
"""Seconds for one; a hint that comes too late is none, and the workers look by themselves."""


class QueueHint:
    """Sends NOTIFY, the first at once and then at most one every :data:`PACE` seconds.

    It has a statement of its own: transactions that notify commit one after the other in all of PostgreSQL,
    and those that accept mail must not.
    """

    def __init__(self, database: Database, *, reactor: Any) -> None:
        self._database = database
        self._reactor = reactor
        self._timer: Any = None
        self._again = False

    def __call__(self) -> None:
        """Something was queued and committed. Cheap, never raises."""
        if self._timer is not None:
            self._again = True
            return
        self._timer = self._reactor.callLater(PACE, self._paced)
        Deferred.fromCoroutine(self._send())

    def stop(self) -> None:
        """Send no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._again = False

    def _paced(self) -> None:
        self._timer = None
        if self._again:
            self._again = False
            self()

    async def _send(self) -> None:
        try:
            await self._database.execute("queue.hint", f"NOTIFY {CHANNEL}", timeout=TIMEOUT)
        except DatabaseError as error:
            log.debug("A hint was not sent; the workers will look by themselves: {why}", why=str(error))
        except Exception:
            log.failure("A hint was not sent; the workers will look by themselves")
