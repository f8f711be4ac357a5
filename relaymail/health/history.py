"""What has been in the last hours, in memory and in little of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from relaymail.health.result import Status

STEP: Final = 240.0
"""Seconds that are put together."""
STEPS: Final = 90
"""So many of them are kept: six hours."""


@dataclass(slots=True)
class Step:
    """What was seen of a check within :data:`STEP` seconds."""

    number: int
    worst: Status
    slowest: float
    """Seconds."""


class CheckHistory:
    """The last hours of one check.

    :param clock: a reactor, or a fake one.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._steps: deque[Step] = deque(maxlen=STEPS)

    def note(self, status: Status, duration: float) -> None:
        """A run found ``status`` after ``duration`` seconds."""
        number = _number(self._clock)
        if not self._steps or self._steps[-1].number != number:
            self._steps.append(Step(number, status, duration))
            return
        last = self._steps[-1]
        last.slowest = max(last.slowest, duration)
        if status.severity > last.worst.severity:
            last.worst = status

    def steps(self) -> list[Step | None]:
        """:data:`STEPS` of them, the latest last; ``None`` where the check did not run."""
        by_number = {step.number: step for step in self._steps}
        now = _number(self._clock)
        return [by_number.get(number) for number in range(now - STEPS + 1, now + 1)]


class RateHistory:
    """How often something happened: in the last minute, and minute by minute in the last hours.

    Told every few seconds how often it has happened in all.

    :param clock: a reactor, or a fake one.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._recent: deque[tuple[float, float]] = deque(maxlen=120)
        self._steps: deque[tuple[int, float]] = deque(maxlen=STEPS)
        self._total = 0.0

    def note(self, total: float) -> None:
        """It has happened ``total`` times by now."""
        now = self._clock.seconds()
        self._recent.append((now, total))
        while len(self._recent) > 2 and self._recent[1][0] <= now - 60:
            self._recent.popleft()
        number = _number(self._clock)
        before = self._steps.pop()[1] if self._steps and self._steps[-1][0] == number else 0.0
        self._steps.append((number, before + total - self._total))
        self._total = total

    def per_minute(self) -> float:
        """How often in the last minute, or in as much of it as there has been."""
        if len(self._recent) < 2:
            return 0.0
        (began, first), (now, total) = self._recent[0], self._recent[-1]
        return (total - first) * 60 / max(now - began, 1.0)

    def steps(self) -> list[float | None]:
        """:data:`STEPS` times how often per minute, the latest last; ``None`` where nobody looked."""
        by_number = dict(self._steps)
        now = _number(self._clock)
        found = [by_number.get(number) for number in range(now - STEPS + 1, now + 1)]
        rates = [None if count is None else count * 60 / STEP for count in found]
        if rates[-1] is not None:
            # The last step is not over
            rates[-1] = rates[-1] * STEP / max(self._clock.seconds() % STEP, 10.0)
        return rates


def _number(clock: Any) -> int:
    return int(clock.seconds() // STEP)
