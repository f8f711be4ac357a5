"""When a row is tried again, and when it is given up. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable

from relaymail.notify.outcome import Outcome

SECOND = 1.0
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

LIFE = 72 * HOUR
"""A row whose attempt fails after this long is dead."""


def backoff(step: int, first: float, most: float, jitter: Callable[[], float] = random.random) -> float:
    """Seconds to wait after failure ``step`` (0: the first), doubling from ``first`` to ``most``, ±20 %."""
    wait = min(first * 2.0 ** min(step, 30), most)
    return wait * (0.8 + 0.4 * jitter())


def delay(attempts: int, outcome: Outcome) -> float:
    """Seconds until a row is tried again that had failed ``attempts`` times before this ``outcome``.

    1 s doubling to 5 min, or 60 s doubling to 1 h where somebody has to mend something first.
    """
    first, most = (MINUTE, HOUR) if outcome.slow else (SECOND, 5 * MINUTE)
    return max(backoff(attempts, first, most), outcome.retry_after)
