"""Batches: the first item leaves at once, what comes meanwhile leaves together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from relaymail.store.group_commit import GroupCommit


class Flights:
    """Commits when told."""

    def __init__(self, **limits: int) -> None:
        self.clock = Clock()
        self.batches: list[tuple[list[str], Deferred[list[str | Exception]]]] = []
        self.group: GroupCommit[str, str] = GroupCommit(self._commit, len, self.clock.seconds, **limits)

    async def _commit(self, items: Sequence[str]) -> Sequence[str | Exception]:
        landed: Deferred[list[str | Exception]] = Deferred()
        self.batches.append((list(items), landed))
        return await landed

    def land(self, number: int) -> None:
        items, landed = self.batches[number]
        landed.callback([item.upper() for item in items])


def results(*deferreds: Deferred[str]) -> list[object]:
    found: list[object] = []
    for deferred in deferreds:
        deferred.addBoth(found.append)
    return found


def test_the_first_leaves_at_once_and_the_rest_together() -> None:
    f = Flights(flights=1)
    a, b, c = (f.group.add(item) for item in "abc")
    assert [items for items, _ in f.batches] == [["a"]]
    f.land(0)
    assert [items for items, _ in f.batches] == [["a"], ["b", "c"]]
    f.land(1)
    assert results(a, b, c) == ["A", "B", "C"]


def test_a_second_flight_leaves_when_enough_wait_and_never_a_third() -> None:
    f = Flights(flights=2, worth=3)
    for item in "abcdefg":
        f.group.add(item)
    assert [items for items, _ in f.batches] == [["a"], ["b", "c", "d"]]
    f.land(0)
    assert f.batches[2][0] == ["e", "f", "g"]


def test_a_second_flight_leaves_when_what_waits_is_heavy() -> None:
    f = Flights(flights=2, worth=100, worth_octets=10)
    waits = [f.group.add(item) for item in ("a", "bbbb", "cccc")]
    waits[1].addErrback(lambda failure: failure.trap(CancelledError))
    waits[1].cancel()
    f.group.add("dddd")
    assert [items for items, _ in f.batches] == [["a"]]
    f.group.add("ee")
    assert [items for items, _ in f.batches] == [["a"], ["cccc", "dddd", "ee"]]
    f.land(0)
    f.land(1)
    f.group.add("f")
    f.group.add("g" * 9)
    assert [items for items, _ in f.batches[2:]] == [["f"]]
    f.group.add("h")
    assert [items for items, _ in f.batches[2:]] == [["f"], ["g" * 9, "h"]]


def test_a_batch_is_bounded_in_items_and_weight() -> None:
    f = Flights(flights=1, largest=3, heaviest=10)
    for item in ("a", "bbbb", "bbbb", "bbbb", "c", "c", "c", "c", "x" * 99, "d"):
        f.group.add(item)
    for number in range(6):
        f.land(number) if number < len(f.batches) else None
    assert [items for items, _ in f.batches] == [
        ["a"],
        ["bbbb", "bbbb"],
        ["bbbb", "c", "c"],
        ["c", "c"],
        ["x" * 99],
        ["d"],
    ]


def test_an_error_is_its_items_alone() -> None:
    f = Flights()
    a = f.group.add("a")
    f.batches[0][1].callback([ValueError("no")])
    failures: list[object] = []
    a.addErrback(lambda failure: failures.append(failure.type))
    assert failures == [ValueError]


def test_an_item_cancelled_while_it_waits_is_withdrawn() -> None:
    f = Flights(flights=1)
    f.group.add("a")
    b, c = f.group.add("b"), f.group.add("c")
    b.addErrback(lambda failure: failure.trap(CancelledError))
    b.cancel()
    f.land(0)
    assert f.batches[1][0] == ["c"]
    f.land(1)
    assert results(c) == ["C"]


def test_an_item_cancelled_in_flight_loses_only_its_answer() -> None:
    f = Flights(flights=1)
    a = f.group.add("a")
    a.addErrback(lambda failure: failure.trap(CancelledError))
    a.cancel()
    b = f.group.add("b")
    f.land(0)
    f.land(1)
    assert results(b) == ["B"]


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_the_longest_wait_is_that_of_the_first_in_line(seconds: float) -> None:
    f = Flights(flights=1)
    assert f.group.longest_wait == 0.0
    f.group.add("a")
    assert f.group.longest_wait == 0.0
    f.group.add("b")
    f.clock.advance(seconds)
    f.group.add("c")
    assert f.group.longest_wait == seconds
