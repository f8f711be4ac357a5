"""When the endpoint is taken for down, and what is said about it."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from relaymail.notify.breaker import REFUSALS, Breaker
from relaymail.notify.outcome import Outcome, from_error, from_status

OK = from_status(204)
UNAUTHORIZED = from_status(401)
BROKEN = from_status(500)


@pytest.fixture
def clock() -> Clock:
    """The test's own time."""
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    """A breaker without jitter."""
    return Breaker(clock, "http://api.example.test", lambda: 0.5)


def fail(breaker: Breaker, outcome: Outcome = UNAUTHORIZED) -> float:
    """Record an outcome of a request of now. Returns the pause that follows."""
    breaker.record(outcome, breaker.epoch)
    return breaker.pause()


def test_it_lets_everything_through_at_first(breaker: Breaker) -> None:
    assert not breaker.open
    assert breaker.pause() == 0
    assert breaker.state.available


def test_probes_come_at_growing_intervals(breaker: Breaker, clock: Clock) -> None:
    pauses = []
    for _ in range(9):
        pauses.append(fail(breaker))
        clock.advance(pauses[-1])
        assert breaker.open
        assert breaker.pause() == 0
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_first_success_lets_everything_through(breaker: Breaker) -> None:
    fail(breaker)
    fail(breaker, OK)
    assert not breaker.open
    assert fail(breaker) == 1


def test_requests_under_way_when_it_opened_count_once(breaker: Breaker) -> None:
    epoch = breaker.epoch
    for _ in range(8):
        breaker.record(UNAUTHORIZED, epoch)
    assert breaker.pause() == 1


def test_an_old_success_does_not_close_it(breaker: Breaker) -> None:
    epoch = breaker.epoch
    breaker.record(UNAUTHORIZED, epoch)
    breaker.record(OK, epoch)
    assert breaker.open


def test_the_endpoint_may_ask_for_a_longer_pause(breaker: Breaker) -> None:
    assert fail(breaker, from_status(429, retry_after=42)) == 42


def test_it_says_one_line_when_it_goes_and_one_when_it_is_back(breaker: Breaker, clock: Clock) -> None:
    with capturedLogs() as lines:
        for _ in range(5):
            fail(breaker)
            clock.advance(60)
        fail(breaker, OK)
        fail(breaker, OK)
    assert [line["log_level"].name for line in lines] == ["warn", "info"]
    assert "401" in lines[0]["reason"]
    assert lines[1]["seconds"] == 300


def test_one_server_error_is_a_pause_but_no_news(breaker: Breaker) -> None:
    with capturedLogs() as lines:
        assert fail(breaker, BROKEN) == 1
        fail(breaker, OK)
        assert lines == []
        fail(breaker, BROKEN)
        assert breaker.state.available
        fail(breaker, BROKEN)
    assert len(lines) == 1
    assert breaker.state.reason == "HTTP 500 Internal Server Error"


def test_the_state_tells_the_latest_reason_and_since_when(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.advance(30)
    fail(breaker, from_error(ConnectionRefusedError()))
    assert not breaker.state.available
    assert breaker.state.reason == "no proper answer (ConnectionRefusedError)"
    assert breaker.state.since == 30


def test_refused_rows_leave_it_closed(breaker: Breaker) -> None:
    for _ in range(REFUSALS - 1):
        assert fail(breaker, from_status(404)) == 0
    fail(breaker, OK)
    assert fail(breaker, from_status(404)) == 0


def test_an_endpoint_that_refuses_everything_is_taken_for_down(breaker: Breaker) -> None:
    for _ in range(REFUSALS):
        pause = fail(breaker, from_status(404))
    assert pause == 1
    assert not breaker.state.available
    assert fail(breaker, from_status(404)) == 2
