"""Who gets the connections that there may be: everyone in turn, whatever one destination has waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from twisted.internet.task import Clock

from relaymail.delivery import couriers
from relaymail.delivery.connections import Way
from relaymail.delivery.contents import Work
from relaymail.delivery.couriers import TURN, Couriers
from relaymail.delivery.destinations import Destinations
from relaymail.delivery.retry import Schedule
from relaymail.delivery.route import NextHost, Route
from relaymail.delivery.tls_policy import Override
from relaymail.store.queue import Job, QueuedRecipient, Settlement

PLENTY = 10 * TURN


def work(destination: str) -> Work:
    """A message to one recipient."""
    now = datetime.now(UTC)
    recipient = QueuedRecipient(1, 0, f"a@{destination}", {}, 0, now, warned=False, in_doubt=False)
    job = Job(uuid4(), uuid4(), destination, 0, "b@example.test", {}, 100, now, None, (recipient,))
    return Work(job, None)


class World:
    """Couriers whose messages are all delivered at once, and a queue that keeps a destination supplied.

    :param shared: whether all destinations have the same hosts.
    """

    def __init__(self, most: int, *, shared: bool) -> None:
        self.brought: list[str] = []
        self.sites: list[str] = []
        self.unclaimed: list[Work] = []
        self._shared = shared
        self.hosts = "hosts.test"
        self._ways: dict[str, Way] = {}
        self.destinations = Destinations(most, most=most if shared else 10)
        world: Any = self
        self.couriers = Couriers(
            world,
            world,
            world,
            destinations=self.destinations,
            schedule=Schedule(),
            clock=Clock(),
            moved=self.moved,
        )

    def moved(self) -> None:
        claimed, self.unclaimed = self.unclaimed[:3], self.unclaimed[3:]
        if claimed:
            self.couriers.add(claimed)

    # The way there

    async def find(self, destination: str) -> Way:
        name = f"mx.{self.hosts}" if self._shared else f"mx.{destination}.{self.hosts}"
        host = NextHost(name, 25, 0, ("192.0.2.1",))
        return self._ways.setdefault(name, Way(Route(destination, "mx", (host,)), Override()))

    def away(self, site: str) -> None:
        return None

    # The ledger

    def hold(self, job: Job) -> None:
        pass

    def settle(self, job: Job, results: list[Settlement]) -> None:
        pass


class Delivered:
    """A try that is over at once."""

    connected = committed = True
    pushed_back = False
    left: tuple[QueuedRecipient, ...] = ()

    def __init__(self, world: Any, work: Work) -> None:
        self._world, self._job = world, work.job
        self.results = [Settlement(1, work.job.token, "delivered", "2.0.0", None, "final-dot")]

    async def run(self, way: Way, link: None) -> None:
        self._world.brought.append(self._job.destination)
        self._world.sites.append(way.site)


@pytest.mark.parametrize("shared", [False, True])
def test_nobody_waits_until_a_destination_with_much_mail_has_none_left(
    shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couriers, "Attempt", Delivered)
    world = World(1, shared=shared)
    world.unclaimed = [work(name) for name in ("big.test", "small.test", "tiny.test")]
    world.unclaimed += [work("big.test") for _ in range(PLENTY)]
    world.couriers.add([work("big.test"), work("big.test")])
    assert len(world.brought) == PLENTY + 5
    assert world.brought.index("small.test") <= 2 * TURN
    assert world.brought.index("tiny.test") <= 2 * TURN
    assert world.destinations.free == 1
    assert world.couriers.waiting == 0


def test_a_route_that_changes_is_taken_by_who_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, shared=False)

    class Moving(Delivered):
        async def run(self, way: Way, link: None) -> None:
            await super().run(way, link)
            if len(world.brought) == 2:
                world.hosts = "moved.test"

    monkeypatch.setattr(couriers, "Attempt", Moving)
    world.couriers.add([work("big.test") for _ in range(4)])
    before, after = "mx.big.test.hosts.test:25", "mx.big.test.moved.test:25"
    assert world.sites == [before, before, after, after]
    assert world.destinations.count(before) == world.destinations.count(after) == 0
