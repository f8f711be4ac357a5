"""Runs checks side by side, each within its time and all within theirs."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from relaymail.doctor.check import Check, Finding, Severity, Skipped, State, failed
from relaymail.doctor.context import Context
from relaymail.telemetry.lines import escape

TOGETHER = 40.0
"""Seconds for all checks; then those that still run are given up."""
PROGRESS = 2.0
"""Seconds between words about checks that still run."""
LONGEST_LINE = 1000
"""Characters of a line that is shown."""
SHORTEST_SECRET = 4
"""Characters: a shorter one would blot out half of the report, and nobody prints one anyway."""

HIDDEN = "***"

WELL, FAILED, WARNED = 0, 1, 3

Progress = Callable[[Sequence[Check], float], None]
"""Told now and then which checks still run, and for how many seconds all have been running."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a check ended."""

    check: Check
    finding: Finding
    seconds: float

    @property
    def severity(self) -> Severity | None:
        """Of the failure; ``None`` where it did not fail."""
        if self.finding.state is not State.FAIL:
            return None
        return self.finding.severity or self.check.severity


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """1: something failed with severity ``error``; 3: with ``warn`` at most; 0: nothing but ``info``."""
    found = {outcome.severity for outcome in outcomes}
    if Severity.ERROR in found:
        return FAILED
    return WARNED if Severity.WARN in found else WELL


async def run_checks(
    checks: Sequence[Check],
    context: Context,
    *,
    together: float = TOGETHER,
    progress: Progress = lambda *_: None,
) -> list[Outcome]:
    """Run all of ``checks``, begun at the same time; what they found, in their order. Raises nothing.

    :param together: seconds for all of them.
    """
    clock = context.reactor
    began = clock.seconds()
    runs = [_Run(check, context, min(check.limit, together)) for check in checks]

    def tell() -> None:
        busy = [run.check for run in runs if not run.done.called]
        if busy:
            progress(busy, clock.seconds() - began)

    telling = LoopingCall(tell)
    telling.clock = clock
    telling.start(PROGRESS, now=False)
    try:
        return [await run.done for run in runs]
    finally:
        telling.stop()
        for run in runs:
            run.stop()


class _Run:
    """One run of a check: it ends once, with a finding, whatever the check does."""

    def __init__(self, check: Check, context: Context, limit: float) -> None:
        self.check = check
        self.done: Deferred[Outcome] = Deferred()
        self._context = context
        self._began = context.reactor.seconds()
        self._timer = context.reactor.callLater(limit, self._too_late, limit)
        self._work = Deferred.fromCoroutine(_look(check, context))
        self._work.addBoth(self._ended)

    def stop(self) -> None:
        """Give up, if it still runs."""
        if self._timer.active():
            self._timer.cancel()
            self._work.cancel()

    def _too_late(self, limit: float) -> None:
        self._end(failed(f"no answer within {limit:g} s", "Whatever this check looks at hangs."))
        self._work.cancel()

    def _ended(self, result: Finding | Failure) -> None:
        if self.done.called:
            return
        if isinstance(result, Failure):
            result = _broken(result)
        self._end(result)

    def _end(self, finding: Finding) -> None:
        if self._timer.active():
            self._timer.cancel()
        seconds = self._context.reactor.seconds() - self._began
        self.done.callback(Outcome(self.check, _shown(finding, self._context.secrets), seconds))


async def _look(check: Check, context: Context) -> Finding:
    try:
        return await check.look(context)
    except Skipped as why:
        return Finding(State.SKIP, str(why))


def _broken(failure: Failure) -> Finding:
    """A fault of the check itself: it is reported like any other, and the others go on."""
    error = failure.value
    if isinstance(error, CancelledError):
        return failed("the check was cancelled")
    frames = traceback.extract_tb(failure.getTracebackObject())
    where = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return failed(
        f"the check itself failed: {type(error).__name__}{where}", "This is a fault of relaymail: report it."
    )


def _shown(finding: Finding, secrets: Sequence[str]) -> Finding:
    """The finding as it may be shown: one line each, without controls and secrets."""

    def safe(text: str) -> str:
        for secret in secrets:
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, HIDDEN)
        text = escape(text)
        return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"

    def clean(value: object) -> object:
        match value:
            case str():
                return safe(value)
            case list() | tuple():
                return [clean(item) for item in value]
            case dict():
                return {safe(str(key)): clean(item) for key, item in value.items()}
            case _:
                return value

    return replace(
        finding,
        summary=safe(finding.summary),
        details=tuple(safe(line) for line in finding.details),
        publish=tuple(safe(line) for line in finding.publish),
        data={key: clean(value) for key, value in finding.data.items()},
    )
