"""A sleep that can be cut short."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from relaymail.store.waker import Waker


def test_it_sleeps_until_its_time() -> None:
    clock = Clock()
    sleep = Deferred.fromCoroutine(Waker(clock).sleep(5))
    seen = []
    for seconds in (4.9, 0.1):
        clock.advance(seconds)
        seen.append(sleep.called)
    assert seen == [False, True]


def test_a_wake_ends_it_in_the_next_turn() -> None:
    clock = Clock()
    waker = Waker(clock)
    sleep = Deferred.fromCoroutine(waker.sleep(5))
    waker.wake()
    waker.wake()
    seen = [sleep.called]
    clock.advance(0)
    seen.append(sleep.called)
    assert seen == [False, True]
    assert not clock.getDelayedCalls()


def test_a_wake_before_the_sleep_is_not_lost_and_counts_once() -> None:
    clock = Clock()
    waker = Waker(clock)
    waker.wake()
    waker.wake()
    assert Deferred.fromCoroutine(waker.sleep(5)).called
    assert not Deferred.fromCoroutine(waker.sleep(5)).called
