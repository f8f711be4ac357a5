"""A few at a time, the others in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred


class Turns:
    """Lets ``most`` in at a time.

    Unlike ``DeferredSemaphore`` it lets the waiting in one behind the other and not one inside the other:
    where each leaves at once (a client that has just been locked out), a hundred would be too many for the
    stack, and those at its end would wait for ever.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._free = most
        self._waiting: deque[Deferred[None]] = deque()
        self._letting_in = False

    @property
    def unused(self) -> bool:
        """Whether nobody is in, and nobody is being let in."""
        return self._free == self._most and not self._letting_in

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be in; waits until there is room."""
        if self._free:
            self._free -= 1
        else:
            waiter: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(waiter)
            await waiter
        try:
            yield
        finally:
            self._free += 1
            self._let_in()

    def _let_in(self) -> None:
        if self._letting_in:
            # Whoever does so further up the stack goes on with it
            return
        self._letting_in = True
        while self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft().callback(None)
        self._letting_in = False
