"""All checks together: reports when asked, looks by itself every half minute, tells of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from relaymail.health.history import CheckHistory
from relaymail.health.result import CheckReport, HealthCheck, Report, Status
from relaymail.health.runner import CheckRunner

log = Logger()

INTERVAL = 30.0
"""Seconds between looks of its own, so that metrics exist when nobody asks."""
LIMIT = 5.0
"""Seconds each check may take. All start together, so that no report takes longer."""
GRACE = 15.0
"""Seconds that a host has to become ready before the log is told what is not well with it."""

CHECK_NAMES = (
    "database",
    "smtp",
    "dns-mx",
    "certificate",
    "connection-pool",
    "disk-space",
    "memory",
    "delivery-queue",
)
"""Every name a check can have. Not all are there in every configuration."""

_LEVELS = {Status.HEALTHY: LogLevel.info, Status.DEGRADED: LogLevel.warn, Status.UNHEALTHY: LogLevel.error}

Record = Callable[[str, int, float], None]
"""Told of each finished check: name, severity (0 to 2), seconds."""


class HealthMonitor:
    """The health of this host.

    :param checks: those that this configuration has.
    :param ready: names (``HealthCheck:ReadyChecks``) of those that decide about readiness; one that this
        configuration does not have is passed over.
    :param clock: a reactor, or a fake one.
    :param limit: seconds each check may take.
    :param record: told of each finished check.
    :param grace: seconds from now in which the log hears of no change, or until :meth:`settled`: what is not
        there yet while a host starts is no fault.
    :raises ValueError: ``ready`` has a name that no check has, ever; or two checks have the same name.
    """

    def __init__(
        self,
        checks: Iterable[HealthCheck],
        *,
        ready: Iterable[str],
        clock: Any,
        limit: float = LIMIT,
        record: Record | None = None,
        grace: float = 0.0,
    ) -> None:
        self._clock = clock
        self._quiet_until = clock.seconds() + grace
        self._record = record
        self._runners = {
            check.name: CheckRunner(check, clock=clock, limit=limit, noted=self._note) for check in checks
        }
        names = list(self._runners)
        self._ready = _known(ready)
        self._states: dict[str, Status] = dict.fromkeys(names, Status.HEALTHY)
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock
        self._stopping = False
        self.latest: dict[str, CheckReport] = {}
        """The last report of each check that has run."""
        self.history = {name: CheckHistory(clock) for name in names}
        """The last hours of each check."""
        self._looked_at = 0.0

    def start(self) -> None:
        """Begin to look every :data:`INTERVAL`, now for the first time."""
        self._loop.start(INTERVAL).addErrback(self._loop_broke)

    def settled(self) -> None:
        """The host is ready: look now, and tell of changes from now on."""
        Deferred.fromCoroutine(self._settle()).addErrback(self._loop_broke)

    async def _settle(self) -> None:
        # What runs now may have begun before the host was ready
        await self.full()
        self._quiet_until = self._clock.seconds()
        if not self._stopping:
            await self.full()

    def stop(self) -> None:
        """Look no more. Runs under way end; who waits for them is told that the host stops."""
        self._stopping = True
        if self._loop.running:
            self._loop.stop()
        for runner in self._runners.values():
            runner.cancel()

    async def full(self) -> Report:
        """The report of all checks."""
        return await self._report(list(self._runners.values()))

    async def ready(self) -> Report:
        """The report of the checks that decide whether mail should come here."""
        return await self._report([self._runners[name] for name in self._ready if name in self._runners])

    async def recent(self) -> tuple[Report, float]:
        """The last report of each check, and how many seconds ago the last of them was made.

        Costs nothing, but for the very first time.
        """
        if len(self.latest) < len(self._runners):
            await self.full()
        checks = tuple(self.latest[name] for name in self._runners if name in self.latest)
        return Report(checks), self._clock.seconds() - self._looked_at

    async def _report(self, runners: Sequence[CheckRunner]) -> Report:
        began = self._clock.seconds()
        waiting = [runner.report() for runner in runners]
        checks = tuple([await report for report in waiting])
        return Report(checks, self._clock.seconds() - began)

    async def _look(self) -> None:
        await self.full()

    def _note(self, report: CheckReport) -> None:
        if self._stopping:
            return
        self.latest[report.name] = report
        self._looked_at = self._clock.seconds()
        self.history[report.name].note(report.result.status, report.duration)
        if self._record is not None:
            self._record(report.name, report.result.status.severity, report.duration)
        if self._clock.seconds() < self._quiet_until:
            return
        before, now = self._states[report.name], report.result.status
        self._states[report.name] = now
        if before is now:
            return
        event: dict[str, Any] = {} if report.failure is None else {"log_failure": report.failure}
        log.emit(
            _LEVELS[now],
            "Health check {check} is {status}, was {before}: {description}",
            check=report.name,
            status=now.value,
            before=before.value,
            description=report.result.description or "",
            **event,
        )

    def _loop_broke(self, failure: Failure) -> None:
        log.failure("Health is only looked at when asked for from now on", failure=failure)


def _known(names: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in CHECK_NAMES]
    if unknown:
        raise ValueError(
            f"HealthCheck:ReadyChecks: {', '.join(map(repr, unknown))} is no check; "
            f"there are {', '.join(CHECK_NAMES)}"
        )
    return wanted
