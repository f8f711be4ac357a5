"""Looks now and then at what nobody is told of: what waits, what comes in, how busy the reactor is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.health.history import RateHistory
from relaymail.store import outbox
from relaymail.store.database import Database, DatabaseError
from relaymail.store.queue_counts import queue_counts, queue_overdue
from relaymail.telemetry import Metrics

log = Logger()

LAG_INTERVAL: Final = 0.25
"""Seconds between looks at how late the reactor is."""
RATE_INTERVAL: Final = 5.0
"""Seconds between looks at how many messages have come."""
DEPTH_INTERVAL: Final = 30.0
"""Seconds between looks at how much waits in the database."""

Look = Callable[[], Awaitable[None]]
"""Looks at how much waits somewhere, and tells the metrics."""


class Activity:
    """Keeps the metrics that are levels up to date, and the recent past for the status page.

    :param depths: what to look at every :data:`DEPTH_INTERVAL` seconds; may raise ``DatabaseError``.
    """

    def __init__(self, metrics: Metrics, depths: Sequence[Look], *, reactor: Any) -> None:
        self._metrics = metrics
        self._depths = depths
        self._reactor = reactor
        self._expected = 0.0
        self.messages = RateHistory(reactor)
        """Messages that were made durable."""
        self._loops = [
            (LoopingCall(self._look_at_lag), LAG_INTERVAL),
            (LoopingCall(self._look_at_rate), RATE_INTERVAL),
            (LoopingCall(self._look_at_depths), DEPTH_INTERVAL),
        ]

    def start(self) -> None:
        """Begin to look."""
        self._expected = self._reactor.seconds()
        for loop, interval in self._loops:
            loop.clock = self._reactor
            loop.start(interval).addErrback(_broke)

    def settled(self) -> None:
        """The database is ready: look at what waits in it now, rather than with the next round."""
        Deferred.fromCoroutine(self._look_at_depths()).addErrback(_broke)

    def stop(self) -> None:
        """Look no more."""
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()

    def _look_at_lag(self) -> None:
        now = self._reactor.seconds()
        self._metrics.reactor_lagged(max(0.0, now - self._expected))
        # LoopingCall leaves out what it is too late for
        self._expected = now + LAG_INTERVAL - (now - self._expected) % LAG_INTERVAL

    def _look_at_rate(self) -> None:
        self.messages.note(self._metrics.messages.total())

    async def _look_at_depths(self) -> None:
        for look in self._depths:
            try:
                await look()
            except DatabaseError as error:
                # That it is away is the database check's to say
                log.debug("What waits cannot be counted: {why}", why=str(error))


def outbox_depth(database: Database, metrics: Metrics) -> Look:
    """How many notifications wait."""

    async def look() -> None:
        counts = await outbox.counts(database)
        metrics.outbox_seen(
            pending=counts.pending, due=counts.due, dead=counts.dead, oldest=counts.oldest_due_seconds
        )

    return look


def queue_depth(database: Database, metrics: Metrics) -> Look:
    """How many recipients wait for delivery."""

    async def look() -> None:
        counts = await queue_counts(database)
        due, oldest = await queue_overdue(database)
        metrics.queue_seen(
            pending=counts.queued,
            due=due,
            sending=counts.sending,
            stalled=counts.stalled,
            held=counts.held,
            oldest=oldest,
        )

    return look


def _broke(failure: Failure) -> None:
    log.failure("Something is not looked at any more", failure=failure)
