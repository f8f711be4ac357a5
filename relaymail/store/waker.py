"""A sleep that can be cut short."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class Waker:
    """One sleeper, woken by time or by :meth:`wake`."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._sleeper: Deferred[None] | None = None
        self._timer: Any = None
        self._woken = False

    async def sleep(self, seconds: float) -> None:
        """Wait for at most ``seconds``; a wake that came since the last sleep ends it at once."""
        if self._woken:
            self._woken = False
            return
        self._sleeper = Deferred()
        self._timer = self._clock.callLater(seconds, self._rise)
        await self._sleeper

    def wake(self) -> None:
        """End the sleep, or the next one before it begins. Cheap: the sleeper runs in a later turn."""
        if self._woken:
            return
        self._woken = True
        if self._timer is not None:
            self._timer.reset(0)

    def _rise(self) -> None:
        sleeper, self._sleeper, self._timer, self._woken = self._sleeper, None, None, False
        if sleeper is not None:
            sleeper.callback(None)
