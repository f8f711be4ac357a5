"""Waiting for something to come true, with blocking calls."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], limit: float = 20.0, step: float = 0.02) -> None:
    """Return as soon as ``condition`` holds; fail when it does not within ``limit`` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"it did not come true within {limit:g} s"
        time.sleep(step)
