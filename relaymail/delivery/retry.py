"""When a recipient is tried again, warned about, and given up (RFC 5321 4.5.4.1). Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

DELAYS: Final = (5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, 1 * HOUR, 2 * HOUR, 4 * HOUR)
"""Waits before each further try; the last one goes on until the end of life."""
LIFE: Final = 5 * DAY
NULL_SENDER_LIFE: Final = 1 * DAY
"""A report that cannot be delivered interests nobody after a day."""
WARNING: Final = 4 * HOUR
"""Age at which the sender hears that the message is still on its way."""

RETRIES: Final = 10
BASE_DELAY: Final = 1 * MINUTE
"""What stands for the one of ``MaxRetries`` and ``RetryBaseDelaySeconds`` that is not set."""
LONGEST_DELAY: Final = 1 * DAY
"""Doubling ends here."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The waits between tries.

    ``delays`` are seconds; where ``repeats`` the last one goes on until ``life`` is over, else the try behind
    it is the last. ``life`` is in seconds from when the recipient was queued; ``null_sender_life`` is that of
    mail from the null sender. ``jitter`` gives a number from 0 to 1.
    """

    delays: Sequence[float] = DELAYS
    repeats: bool = True
    life: float = LIFE
    null_sender_life: float = NULL_SENDER_LIFE
    warning: float = WARNING
    jitter: Callable[[], float] = random.random

    def wait(self, attempts: int, age: float, *, null_sender: bool) -> float | None:
        """Seconds until the next try, ±10 %, or ``None``: there is none.

        :param attempts: those made so far, the one that has just failed included.
        :param age: seconds since the recipient was queued.
        """
        if age >= self.longest(null_sender=null_sender) or (not self.repeats and attempts > len(self.delays)):
            return None
        return self.pause(attempts)

    def pause(self, failures: int) -> float:
        """Seconds until the next try behind so many failures in a row, ±10 %, whatever the age."""
        if not self.delays:
            return LONGEST_DELAY
        step = self.delays[min(max(failures, 1), len(self.delays)) - 1]
        return step * (0.9 + 0.2 * self.jitter())

    def longest(self, *, null_sender: bool) -> float:
        """Seconds after which a failed try was the last."""
        return min(self.life, self.null_sender_life) if null_sender else self.life

    def longest_untried(self, *, null_sender: bool) -> float:
        """Seconds after which a recipient is given up that nobody tries, since its destination is left alone.

        A schedule that ends with its tries would never end then; it gets twice what they take, and at least
        a day.
        """
        life = self.longest(null_sender=null_sender)
        return life if life < float("inf") else max(DAY, 2 * sum(self.delays))


def schedule(
    delays: Sequence[float] | None = None, retries: int | None = None, base_delay: float | None = None
) -> Schedule:
    """The schedule of the settings: ``delays`` where given, else ``retries`` doubling from ``base_delay`` (of
    which one will do), else five days.

    An operator's own schedule ends with its tries, not with an age; but nothing from the null sender is tried
    for more than a day.
    """
    if delays is not None:
        return Schedule(tuple(delays), repeats=False, life=float("inf"))
    if retries is None and base_delay is None:
        return Schedule()
    count = RETRIES if retries is None else retries
    base = BASE_DELAY if base_delay is None else base_delay
    doubled = tuple(min(base * 2.0 ** min(n, 60), LONGEST_DELAY) for n in range(count))
    return Schedule(doubled, repeats=False, life=float("inf"))
