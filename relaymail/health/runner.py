"""Runs one check within its time; whoever asks meanwhile is told the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from relaymail.health.result import CheckReport, HealthCheck, Result, Status

STOPPED = Result(Status.UNHEALTHY, "the host is stopping")


class CheckRunner:
    """One check, at most one run of it under way.

    :param limit: seconds a run may take; then it is cancelled, and reported whether it heeds that or not.
    :param noted: told each report that a run ends with.
    """

    def __init__(
        self, check: HealthCheck, *, clock: Any, limit: float, noted: Callable[[CheckReport], None]
    ) -> None:
        self.check = check
        self._clock = clock
        self._limit = limit
        self._noted = noted
        self._run: _Run | None = None
        self._waiters: list[Deferred[CheckReport]] = []
        self._latest: CheckReport | None = None
        self._latest_at = 0.0

    def report(self) -> Deferred[CheckReport]:
        """What the check finds: in a run under way, a moment ago if the check shares, else in a new run."""
        waiter: Deferred[CheckReport] = Deferred(self._forget)
        fresh = self._fresh()
        if self._run is None and fresh is not None:
            waiter.callback(fresh)
            return waiter
        self._waiters.append(waiter)
        if self._run is None:
            self._run = _Run(self.check, self._clock, self._limit, self._ended)
            self._run.start()
        return waiter

    def cancel(self) -> None:
        """End the run under way; those who wait for it are told that the host stops."""
        if self._run is not None:
            self._run.give_up(STOPPED)

    def _fresh(self) -> CheckReport | None:
        return self._latest if self._clock.seconds() - self._latest_at < self.check.shared else None

    def _forget(self, waiter: Deferred[CheckReport]) -> None:
        self._waiters.remove(waiter)

    def _ended(self, report: CheckReport) -> None:
        self._run = None
        self._latest, self._latest_at = report, self._clock.seconds()
        waiters, self._waiters = self._waiters, []
        if report.result is not STOPPED:
            # Before the others: one of them may ask for what was noted
            self._noted(report)
        for waiter in waiters:
            waiter.callback(report)


class _Run:
    """One run of a check: it ends once, with the check's result, or without it when its time is over."""

    def __init__(
        self, check: HealthCheck, clock: Any, limit: float, ended: Callable[[CheckReport], None]
    ) -> None:
        self._check = check
        self._clock = clock
        self._limit = limit
        self._ended: Callable[[CheckReport], None] | None = ended
        self._began = clock.seconds()
        self._timer = clock.callLater(limit, self._too_late)
        self._work: Deferred[None] | None = None

    def start(self) -> None:
        """Begin; the end may come before this returns."""
        self._work = Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        try:
            result = await self._check.run()
        except GeneratorExit:
            raise
        except BaseException as error:
            # Whatever it is, it is the check's result; its text may hold a credential or a path
            failure = Failure()
            description = f"the check itself failed ({type(error).__name__})"
            self._end(Result(Status.UNHEALTHY, description), failure)
        else:
            self._end(result)

    def _too_late(self) -> None:
        self.give_up(Result(Status.UNHEALTHY, f"timed out after {self._limit:g} s"))

    def give_up(self, result: Result) -> None:
        """End with ``result`` now, and cancel the work, whether it heeds that or not."""
        self._end(result)
        if self._work is not None:
            self._work.cancel()

    def _end(self, result: Result, failure: Failure | None = None) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        if self._timer.active():
            self._timer.cancel()
        duration = self._clock.seconds() - self._began
        ended(CheckReport(self._check.name, self._check.tags, duration, result, failure))
