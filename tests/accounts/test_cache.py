"""The map that forgets."""

from __future__ import annotations

from twisted.internet.task import Clock

from relaymail.store.cache import TimedCache


def test_a_value_lives_its_lifetime_and_no_longer() -> None:
    clock = Clock()
    cache: TimedCache[str, int] = TimedCache(clock, lifetime=1.0, size=10)
    cache.put("a", 1)
    clock.advance(0.99)
    assert cache.get("a") == 1
    clock.advance(0.01)
    assert cache.get("a") is None
    assert len(cache) == 0


def test_there_are_never_more_than_size_values_and_the_oldest_goes() -> None:
    cache: TimedCache[int, int] = TimedCache(Clock(), lifetime=1.0, size=3)
    for n in range(5):
        cache.put(n, n)
    assert [cache.get(n) for n in range(5)] == [None, None, 2, 3, 4]


def test_putting_a_value_again_renews_it() -> None:
    clock = Clock()
    cache: TimedCache[str, int] = TimedCache(clock, lifetime=1.0, size=2)
    cache.put("a", 1)
    cache.put("b", 2)
    clock.advance(0.6)
    cache.put("a", 3)
    cache.put("c", 4)
    clock.advance(0.6)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (3, None, 4)


def test_chosen_values_can_be_dropped() -> None:
    cache: TimedCache[str, int] = TimedCache(Clock(), lifetime=1.0, size=10)
    for name, value in (("a", 1), ("b", 2), ("c", 1)):
        cache.put(name, value)
    assert cache.discard(lambda value: value == 1) == 2
    assert (cache.get("a"), cache.get("b")) == (None, 2)
