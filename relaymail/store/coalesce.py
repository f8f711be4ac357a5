"""Look-ups that arrive while a query is in flight go together into the next one, as in a group commit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

V = TypeVar("V")


class Coalescer(Generic[V]):
    """Turns many single look-ups into few joint ones.

    The first look-up leaves at once, so that an idle host answers without delay; whatever comes while it is
    under way waits and leaves together. With a slow database the batches grow instead of the queue of
    statements.

    :param fetch: finds the values of all the keys given; a key without a value is left out.
    :param largest: most keys in one batch.
    """

    def __init__(
        self, fetch: Callable[[Sequence[str]], Awaitable[Mapping[str, V]]], *, largest: int = 1000
    ) -> None:
        self._fetch = fetch
        self._largest = largest
        self._waiting: dict[str, list[Deferred[V | None]]] = {}
        self._in_flight = False

    async def get(self, key: str) -> V | None:
        """The value of ``key``, ``None`` where it has none; raises what the joint look-up raised."""
        waiter: Deferred[V | None] = Deferred()
        self._waiting.setdefault(key, []).append(waiter)
        if not self._in_flight:
            self._in_flight = True
            Deferred.fromCoroutine(self._fly())
        return await waiter

    async def _fly(self) -> None:
        """Fetch batch after batch until nobody waits. Never raises: what goes wrong the waiters hear."""
        while self._waiting:
            keys = list(self._waiting)[: self._largest]
            batch = {key: self._waiting.pop(key) for key in keys}
            try:
                found = await self._fetch(keys)
            except Exception as error:
                for waiters in batch.values():
                    for waiter in waiters:
                        waiter.errback(error)
                continue
            for key, waiters in batch.items():
                for waiter in waiters:
                    waiter.callback(found.get(key))
        self._in_flight = False
