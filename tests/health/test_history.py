"""The last hours, kept in bounded memory."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from relaymail.health import Status
from relaymail.health.history import STEP, STEPS, CheckHistory, RateHistory, Step


def test_a_step_keeps_the_worst_status_and_the_slowest_run() -> None:
    clock = Clock()
    clock.advance(10 * STEP)
    history = CheckHistory(clock)
    history.note(Status.DEGRADED, 0.2)
    history.note(Status.UNHEALTHY, 0.1)
    history.note(Status.HEALTHY, 0.3)
    clock.advance(STEP)
    history.note(Status.HEALTHY, 0.1)
    assert history.steps()[-2:] == [Step(10, Status.UNHEALTHY, 0.3), Step(11, Status.HEALTHY, 0.1)]
    assert history.steps()[:-2] == [None] * (STEPS - 2)


def test_steps_without_a_run_are_gaps_and_old_ones_are_gone() -> None:
    clock = Clock()
    clock.advance(STEP * 1000)
    history = CheckHistory(clock)
    for n in range(3 * STEPS):
        history.note(Status.HEALTHY, n)
        clock.advance(STEP)
    steps = history.steps()
    assert len(steps) == STEPS
    assert steps[-1] is None
    assert [step.slowest for step in steps[:-1] if step] == [
        float(n) for n in range(2 * STEPS + 1, 3 * STEPS)
    ]
    clock.advance(STEP * STEPS)
    assert history.steps() == [None] * STEPS


def test_the_rate_is_that_of_the_last_minute() -> None:
    clock = Clock()
    history = RateHistory(clock)
    history.note(0)
    assert history.per_minute() == 0
    for n in range(1, 61):
        clock.advance(5)
        history.note(10 * n)
    assert history.per_minute() == pytest.approx(120)
    for _ in range(13):
        clock.advance(5)
        history.note(600)
    assert history.per_minute() == 0


def test_what_came_is_told_per_minute_of_each_step() -> None:
    clock = Clock()
    clock.advance(STEP * 100)
    history = RateHistory(clock)
    total = 0
    for _ in range(int(2 * STEP / 5)):
        history.note(total)
        clock.advance(5)
        total += 1
    assert history.steps()[-1] is None
    assert history.steps()[-3:-1] == [pytest.approx(12, abs=0.3), pytest.approx(12, abs=0.3)]
    history.note(total)
    clock.advance(60)
    history.note(total + 60)
    assert history.steps()[-1] == pytest.approx(61)


def test_memory_is_bounded() -> None:
    clock = Clock()
    rates = RateHistory(clock)
    for n in range(100_000):
        clock.advance(5)
        rates.note(n)
    assert len(rates._recent) <= 14
    assert len(rates._steps) == STEPS
