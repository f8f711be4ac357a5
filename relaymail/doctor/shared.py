"""Something several checks need, made once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Shared(Generic[T]):
    """The result of ``make``, which runs when first asked for, and once.

    Who gives up waiting does not take it from the others.
    """

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._work: Deferred[None] | None = None
        self._waiters: list[Deferred[T]] = []
        self._result: list[T | Failure] = []

    @property
    def begun(self) -> bool:
        """Whether anybody has asked for it."""
        return self._work is not None

    def get(self) -> Deferred[T]:
        """The result, or what making it raised."""
        waiter: Deferred[T] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        if self._result:
            self._tell()
        elif self._work is None:
            self._work = Deferred.fromCoroutine(self._run())
        return waiter

    async def _run(self) -> None:
        result: T | Failure
        try:
            result = await self._make()
        except BaseException:
            result = Failure()
        self._result.append(result)
        self._tell()

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(self._result[0])

    async def end(self) -> None:
        """Stop making it, and wait until what had begun is cleaned up."""
        if self._work is not None:
            self._work.cancel()
            await self._work
