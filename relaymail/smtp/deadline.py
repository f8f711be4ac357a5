"""The clock of a session: one deadline at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Deadline:
    """Calls ``expired`` when the time set last is over.

    There is one timer, and it is moved only when the deadline comes nearer: a deadline is set with every
    command, and nearly none is ever reached. ``latest`` is the moment (of ``reactor.seconds()``) beyond which
    no deadline lies, unless it is told not to mind.
    """

    __slots__ = ("_at", "_expired", "_reactor", "_rings", "_timer", "latest")

    def __init__(self, reactor: Any, latest: float, expired: Callable[[], None]) -> None:
        self.latest = latest
        self._reactor = reactor
        self._expired = expired
        self._at = 0.0
        self._timer: Any = None
        self._rings = 0.0
        """When the timer does."""

    def within(self, seconds: float, *, capped: bool = True) -> None:
        """Set the deadline, ``seconds`` from now; ``capped``: not beyond :attr:`latest`."""
        now = self._reactor.seconds()
        at = now + seconds
        self._at = at = self.latest if capped and at > self.latest else at
        if self._timer is None or self._rings > at:
            self._set(at - now)

    def cancel(self) -> None:
        """No deadline any more, for good."""
        # Whom it called holds us: without this only the garbage collection would part the two
        self._expired = _nobody
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = self._at
        self._timer = self._reactor.callLater(max(seconds, 0.0), self._ring)

    def _ring(self) -> None:
        self._timer = None
        left = self._at - self._reactor.seconds()
        if left > 0:
            self._set(left)
        else:
            self._expired()


def _nobody() -> None:
    """Nobody is called."""
