"""Waiting for something to come true, with blocking calls: for tests whose host is another process."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT = 60.0
"""Seconds after which what was waited for will not come; a test that passes never waits so long."""


def until(
    condition: Callable[[], object],
    limit: float = LIMIT,
    told: Callable[[], str] = str,
    *,
    step: float = 0.02,
) -> None:
    """Return as soon as ``condition`` holds, which is looked at every ``step`` seconds.

    :raises AssertionError: it did not within ``limit`` seconds; ``told`` adds what is known.
    """
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"it did not come true within {limit:g} s. {told()}"
        time.sleep(step)
