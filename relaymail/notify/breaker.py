"""Whether the endpoint takes requests at all: with it down, one probe at a time is all it costs.

A failure opens the breaker: nothing is sent for a while, then one request, and so on at growing intervals
until one succeeds. Requests that were under way when it opened are not counted again: each belongs to the
epoch in which it began.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

from relaymail.notify.outcome import Outcome, Verdict
from relaymail.notify.schedule import MINUTE, SECOND, backoff

log = Logger()

REFUSALS = 10
"""So many refusals in a row are no matter of single rows any more, but of the address they are sent to."""

PROBE_FIRST = 1 * SECOND
PROBE_MOST = 1 * MINUTE


@dataclass(frozen=True, slots=True)
class EndpointState:
    """How the API stands with us."""

    available: bool
    reason: str | None
    """Why it is not available."""
    since: float
    """Seconds for which it has been so."""


class Breaker:
    """Judges the endpoint by the outcomes of requests; logs one line when it goes, one when it is back."""

    def __init__(self, clock: Any, where: str, jitter: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._where = where
        self._jitter = jitter
        self._failures = 0
        self._refusals = 0
        self._ready_at = 0.0
        self._announced: str | None = None
        self._changed_at = clock.seconds()
        self.epoch = 0
        """The ticket of a request: take it when the request begins, hand it to :meth:`record`."""

    @property
    def open(self) -> bool:
        """Whether requests go one at a time."""
        return self._failures > 0

    @property
    def state(self) -> EndpointState:
        """What is known of the endpoint."""
        since = self._clock.seconds() - self._changed_at
        return EndpointState(self._announced is None, self._announced, since)

    def pause(self) -> float:
        """Seconds until the next request may begin; 0: now."""
        return max(0.0, self._ready_at - self._clock.seconds()) if self.open else 0.0

    def record(self, outcome: Outcome, epoch: int) -> None:
        """Learn from the outcome of a request that began in ``epoch``."""
        if epoch != self.epoch:
            return
        if outcome.verdict is Verdict.REFUSED:
            self._refused(outcome)
        elif outcome.verdict is Verdict.UNAVAILABLE:
            self._failed(outcome)
        else:
            self._refusals = 0
            self._works()

    def _refused(self, outcome: Outcome) -> None:
        """An answer all the same: the endpoint is there, unless it refuses everything."""
        self._refusals += 1
        if self._refusals >= REFUSALS:
            self._failed(outcome)
        else:
            self._works()

    def _failed(self, outcome: Outcome) -> None:
        wait = backoff(self._failures, PROBE_FIRST, PROBE_MOST, self._jitter)
        self._ready_at = self._clock.seconds() + max(wait, outcome.retry_after)
        self._failures += 1
        self.epoch += 1
        if self._announced is None and (outcome.certain or self._failures > 1):
            self._announced = outcome.reason
            self._changed_at = self._clock.seconds()
            log.warn(
                "The API at {where} takes no notifications: {reason}. They wait in the outbox",
                where=self._where,
                reason=outcome.reason,
            )
        elif self._announced is not None:
            self._announced = outcome.reason

    def _works(self) -> None:
        self._failures = 0
        if self._announced is None:
            return
        down = self._clock.seconds() - self._changed_at
        self._announced = None
        self._changed_at = self._clock.seconds()
        log.info(
            "The API at {where} takes notifications again, after {seconds:.0f} s",
            where=self._where,
            seconds=down,
        )
