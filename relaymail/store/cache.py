"""A small map that forgets: entries live a fixed time, and there are never more than so many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Seconds(Protocol):
    """The part of ``IReactorTime`` a cache needs; a reactor and ``task.Clock`` both have it."""

    def seconds(self) -> float:
        """The time now, in seconds."""


class TimedCache(Generic[K, V]):
    """Keeps values for ``lifetime`` seconds, at most ``size`` of them; the oldest go first."""

    def __init__(self, clock: Seconds, *, lifetime: float, size: int) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._size = size
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value stored under ``key`` less than a lifetime ago, or ``None``."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, value = entry
        if self._clock.seconds() >= expires:
            del self._entries[key]
            return None
        return value

    def put(self, key: K, value: V) -> None:
        """Store ``value``; its lifetime starts now, also where the key was there before."""
        self._entries.pop(key, None)
        self._entries[key] = (self._clock.seconds() + self._lifetime, value)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def discard(self, unwanted: Callable[[V], bool]) -> int:
        """Drop every value that ``unwanted`` picks; returns how many."""
        keys = [key for key, (_, value) in self._entries.items() if unwanted(value)]
        for key in keys:
            del self._entries[key]
        return len(keys)

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()
