"""Mail goes first: fewer requests while the reactor is busy."""

from __future__ import annotations

from twisted.internet.task import Clock

from relaymail.notify.governor import Governor


class Load:
    """A clock and a thread that computes for a share of its time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.used = 0.0

    def run(self, seconds: float, share: float) -> None:
        self.clock.advance(seconds)
        self.used += seconds * share


def test_a_busy_reactor_leaves_one_and_a_calm_one_all() -> None:
    load = Load()
    governor = Governor(load.clock, 8, lambda: load.used)
    allowed = [governor.allowed()]
    for share in [1.0] * 4 + [0.5] * 8:
        load.run(0.11, share)
        allowed.append(governor.allowed())
    assert allowed == [8, 4, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8]


def test_it_does_not_judge_by_less_than_its_interval() -> None:
    load = Load()
    governor = Governor(load.clock, 8, lambda: load.used)
    load.run(0.05, 1.0)
    assert governor.allowed() == 8


def test_after_a_long_calm_all_are_allowed_at_once() -> None:
    load = Load()
    governor = Governor(load.clock, 8, lambda: load.used)
    for _ in range(5):
        load.run(0.11, 1.0)
        governor.allowed()
    load.run(5, 0.0)
    assert governor.allowed() == 8
