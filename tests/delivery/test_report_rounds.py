"""When reports that are owed are made."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from relaymail.delivery.report_rounds import ReportRounds
from relaymail.store.database import DatabaseUnavailable

EVERY = 5.0


class Rounds:
    """Rounds that end when told, with what is told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.under_way: list[Deferred[int]] = []
        self.reports = ReportRounds(self._make, reactor=self.clock, every=EVERY)

    async def _make(self) -> int:
        made: Deferred[int] = Deferred()
        self.under_way.append(made)
        return await made

    def end(self, result: object = 0) -> None:
        """End the last one begun."""
        made = self.under_way[-1]
        made.errback(result) if isinstance(result, Exception) else made.callback(0)


@pytest.fixture
def rounds() -> Rounds:
    return Rounds()


def test_the_first_round_is_at_once_and_the_next_after_a_while(rounds: Rounds) -> None:
    rounds.reports.start()
    assert len(rounds.under_way) == 1
    rounds.end()
    rounds.clock.advance(EVERY - 0.1)
    assert len(rounds.under_way) == 1
    rounds.clock.advance(0.1)
    assert len(rounds.under_way) == 2


def test_a_hint_brings_a_round_forward(rounds: Rounds) -> None:
    rounds.reports.start()
    rounds.end()
    for _ in range(3):
        rounds.reports.hint()
    rounds.clock.advance(0)
    assert len(rounds.under_way) == 2


def test_a_hint_while_a_round_is_under_way_has_another_behind_it(rounds: Rounds) -> None:
    rounds.reports.start()
    rounds.reports.hint()
    rounds.clock.advance(EVERY)
    assert len(rounds.under_way) == 1
    rounds.end()
    assert len(rounds.under_way) == 2


@pytest.mark.parametrize(
    ("error", "level"), [(DatabaseUnavailable("away"), LogLevel.debug), (ValueError("x"), LogLevel.critical)]
)
def test_a_round_that_fails_is_not_the_last(rounds: Rounds, error: Exception, level: LogLevel) -> None:
    rounds.reports.start()
    with capturedLogs() as events:
        rounds.end(error)
    assert [event["log_level"] for event in events] == [level]
    rounds.clock.advance(EVERY)
    assert len(rounds.under_way) == 2


def test_a_stop_waits_for_the_round_under_way_and_begins_no_more(rounds: Rounds) -> None:
    rounds.reports.start()
    stopped = Deferred.fromCoroutine(rounds.reports.stop(3.0))
    waited: list[object] = []
    stopped.addCallback(waited.append)
    rounds.clock.advance(2.9)
    assert waited == []
    rounds.end()
    assert waited == [None]
    rounds.clock.advance(EVERY)
    assert len(rounds.under_way) == 1


def test_a_stop_does_not_wait_for_ever_nor_cut_what_is_under_way(rounds: Rounds) -> None:
    rounds.reports.start()
    stopped = Deferred.fromCoroutine(rounds.reports.stop(3.0))
    rounds.clock.advance(3.0)
    assert stopped.called
    assert not rounds.under_way[0].called
    rounds.end()


def test_a_stop_between_rounds_is_done_at_once(rounds: Rounds) -> None:
    rounds.reports.start()
    rounds.end()
    stopped = Deferred.fromCoroutine(rounds.reports.stop(3.0))
    rounds.clock.advance(0)
    assert stopped.called


def test_a_stop_before_the_start_is_done_at_once(rounds: Rounds) -> None:
    assert Deferred.fromCoroutine(rounds.reports.stop(3.0)).called
    assert rounds.under_way == []
