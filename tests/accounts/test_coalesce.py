"""Joint look-ups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.store.coalesce import Coalescer


class Directory:
    """Answers each batch when told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.answers: list[Deferred[Mapping[str, str]]] = []

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.batches.append(list(keys))
        answer: Deferred[Mapping[str, str]] = Deferred()
        self.answers.append(answer)
        return await answer


def ask(coalescer: Coalescer[str], key: str) -> Deferred[str | None]:
    return Deferred.fromCoroutine(coalescer.get(key))


def result(deferred: Deferred[Any]) -> Any:
    """The result, which must be there."""
    got: list[Any] = []
    deferred.addBoth(got.append)
    assert got, "not answered yet"
    return got[0]


def test_lookups_that_wait_leave_together() -> None:
    directory = Directory()
    coalescer: Coalescer[str] = Coalescer(directory.fetch)
    first = ask(coalescer, "a")
    waiting = [ask(coalescer, key) for key in ("b", "c", "b")]
    assert directory.batches == [["a"]]
    directory.answers[0].callback({"a": "A"})
    assert result(first) == "A"
    assert directory.batches == [["a"], ["b", "c"]]
    directory.answers[1].callback({"b": "B"})
    assert [result(one) for one in waiting] == ["B", None, "B"]


def test_a_batch_is_bounded() -> None:
    directory = Directory()
    coalescer: Coalescer[str] = Coalescer(directory.fetch, largest=2)
    asked = [ask(coalescer, key) for key in "abcd"]
    for _ in range(3):
        directory.answers[-1].callback({})
    assert directory.batches == [["a"], ["b", "c"], ["d"]]
    assert [result(one) for one in asked] == [None] * 4


def test_a_failure_reaches_everyone_in_the_batch_and_nobody_else() -> None:
    directory = Directory()
    coalescer: Coalescer[str] = Coalescer(directory.fetch)
    first, second, third = ask(coalescer, "a"), ask(coalescer, "b"), ask(coalescer, "c")
    directory.answers[0].callback({"a": "A"})
    directory.answers[1].errback(RuntimeError("away"))
    assert result(first) == "A"
    for failed in (second, third):
        with pytest.raises(RuntimeError, match="away"):
            result(failed).raiseException()
    fourth = ask(coalescer, "d")
    directory.answers[2].callback({"d": "D"})
    assert result(fourth) == "D"


def test_one_that_gives_up_takes_nothing_from_the_others() -> None:
    directory = Directory()
    coalescer: Coalescer[str] = Coalescer(directory.fetch)
    leaving, staying = ask(coalescer, "a"), ask(coalescer, "a")
    leaving.cancel()
    assert result(leaving).check(CancelledError)
    directory.answers[0].callback({"a": "A"})
    directory.answers[1].callback({"a": "A"})
    assert result(staying) == "A"


def test_asking_again_from_within_an_answer_works() -> None:
    directory = Directory()
    coalescer: Coalescer[str] = Coalescer(directory.fetch)

    async def twice() -> list[str | None]:
        return [await coalescer.get("a"), await coalescer.get("b")]

    both = Deferred.fromCoroutine(twice())
    directory.answers[0].callback({"a": "A"})
    directory.answers[1].callback({"b": "B"})
    assert result(both) == ["A", "B"]
