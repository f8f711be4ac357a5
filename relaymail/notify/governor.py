"""How many requests may be in flight: all while the reactor has time, one while it is busy with mail."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

INTERVAL = 0.1
"""Seconds between two looks at the load."""

BUSY = 0.85
"""The share of the time in which the reactor's thread was computing, above which mail goes first."""


class Governor:
    """Halves the number while the thread is busy, raises it by one while it is not.

    A request costs about as much processor time as accepting a message. Notifications can wait in the
    outbox; the senders of mail cannot.
    """

    def __init__(self, clock: Any, most: int, cpu: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._cpu = cpu
        self._most = most
        self._allowed = most
        self._looked_at = clock.seconds()
        self._used = cpu()

    def allowed(self) -> int:
        """How many requests may be in flight now, at least one. Call it on the reactor's thread."""
        elapsed = self._clock.seconds() - self._looked_at
        if elapsed < INTERVAL:
            return self._allowed
        used = self._cpu()
        share = (used - self._used) / elapsed
        self._looked_at += elapsed
        self._used = used
        if share > BUSY:
            self._allowed = max(1, self._allowed // 2)
        else:
            # After a long calm there is nothing to feel the way to
            self._allowed = min(self._most, self._allowed + max(1, int(elapsed / INTERVAL)))
        return self._allowed
