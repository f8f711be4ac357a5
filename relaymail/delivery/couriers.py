"""Brings claimed messages out: each connection has a courier, who takes one message of its destination after
the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.delivery.attempt import Attempt, Tools
from relaymail.delivery.connections import Link, Way
from relaymail.delivery.contents import Work
from relaymail.delivery.destinations import Destinations
from relaymail.delivery.ledger import Ledger
from relaymail.delivery.retry import Schedule
from relaymail.delivery.route import RouteFailed
from relaymail.delivery.ways import Ways
from relaymail.smtp.client import Outcome
from relaymail.store.archive import ArchiveError
from relaymail.store.database import DatabaseError
from relaymail.store.queue import Job

log = Logger()

FIRST_BLOCK: Final = 60.0
LONGEST_BLOCK: Final = 3600.0
"""Seconds for which a destination is left alone whose hosts cannot be reached: at first, and at last."""
TURN: Final = 10
"""Messages that a courier brings while another destination waits for its connection."""
WORTH: Final = 2
"""Jobs that must wait for each connection of a destination before another one is opened."""
RETREAT: Final = 1.0
"""Seconds before what the database failed is given back: it would be claimed again at once."""
FAULT: Final = RouteFailed(451, "4.3.0", "an internal error")


@dataclass(slots=True)
class Lane:
    """What is to go to one destination."""

    destination: str
    works: deque[Work] = field(default_factory=deque)
    couriers: int = 0
    site: str | None = None
    """The hosts it goes to, once that is known."""


@dataclass(slots=True)
class _Courier:
    lane: Lane
    key: str
    """What the connection is counted by."""
    attempt: Attempt | None = None
    telling: bool = False
    """The queue is being told what is to become of its rows: cut short, they would wait for their lease."""
    way: Way | None = None
    link: Link | None = None


class Couriers:
    """Jobs by destination, and the couriers who bring them there.

    :param moved: called when there is room for more.
    """

    def __init__(
        self,
        tools: Tools,
        ledger: Ledger,
        ways: Ways,
        *,
        destinations: Destinations,
        schedule: Schedule,
        clock: Any,
        moved: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._ledger = ledger
        self._ways = ways
        self._destinations = destinations
        self._schedule = schedule
        self._clock = clock
        self._moved = moved
        self._lanes: dict[str, Lane] = {}
        self._running: dict[Deferred[None], _Courier] = {}
        self._stopping = False
        self.waiting = 0
        """Jobs that no courier has taken yet."""

    # What is there

    def is_short(self, destination: str) -> bool:
        """Whether there is room for more mail to one destination."""
        lane = self._lanes.get(destination)
        return lane is None or len(lane.works) < self.enough(lane)

    def well_supplied(self) -> list[str]:
        """Destinations that have enough for a while."""
        return [lane.destination for lane in self._lanes.values() if len(lane.works) >= self.enough(lane)]

    def enough(self, lane: Lane) -> int:
        """Jobs that may wait for it: two for each connection it may have."""
        key = lane.site or lane.destination
        return 2 * self._destinations.allowed(key, lane.destination)

    # What comes and goes

    def add(self, works: Iterable[Work]) -> None:
        """Take over what was claimed."""
        for work in works:
            destination = work.job.destination
            lane = self._lanes.get(destination)
            if lane is None:
                lane = self._lanes[destination] = Lane(destination)
            lane.works.append(work)
            self._ledger.hold(work.job)
            self.waiting += 1
        self.dispatch()

    def dispatch(self) -> None:
        """Send out as many couriers as may go: one to each destination before any gets a second."""
        lanes = sorted(self._lanes.values(), key=lambda lane: lane.couriers)
        while lanes and self._destinations.free > 0 and not self._stopping:
            lanes = [lane for lane in lanes if self._reinforce(lane)]

    def _reinforce(self, lane: Lane) -> bool:
        """Send out another courier, if there is enough to do; whether one went."""
        if self._stopping or len(lane.works) <= WORTH * lane.couriers or not self._may_start(lane):
            return False
        self._start(lane)
        return True

    def drop(self, ids: set[int]) -> None:
        """These rows are not ours any more: what waits is forgotten; what is under way finds out itself."""
        for lane in list(self._lanes.values()):
            kept = [work for work in lane.works if not any(one.id in ids for one in work.job.recipients)]
            for work in lane.works:
                if work not in kept:
                    self._ledger.forget(work.job)
            self.waiting -= len(lane.works) - len(kept)
            lane.works = deque(kept)

    def begin_stop(self) -> list[Job]:
        """Start nothing more, and end what is not behind its final dot. Returns what was not begun."""
        unused = [work.job for lane in self._lanes.values() for work in self._emptied(lane)]
        if not self._stopping:
            self._stopping = True
            for running, courier in list(self._running.items()):
                if not courier.telling and (courier.attempt is None or not courier.attempt.committed):
                    running.cancel()
        return unused

    def cut(self) -> None:
        """End what is behind its final dot as well; it is in doubt then, when its lease ends."""
        for running in list(self._running):
            running.cancel()

    def under_way(self) -> list[Deferred[None]]:
        """What has to be waited for."""
        return [*self._running, *self._ledger.under_way]

    # Couriers

    def _may_start(self, lane: Lane) -> bool:
        if lane.site is None:
            return lane.couriers == 0 and self._destinations.free > 0
        return self._destinations.has_room(lane.site, lane.destination)

    def _start(self, lane: Lane) -> None:
        courier = _Courier(lane, lane.site or f"? {lane.destination}")
        lane.couriers += 1
        self._destinations.opened(courier.key)
        running = Deferred.fromCoroutine(self._go(courier))
        self._running[running] = courier
        running.addBoth(self._gone, running, courier)

    def _gone(self, result: object, running: Deferred[None], courier: _Courier) -> None:
        self._running.pop(running, None)
        self._destinations.closed(courier.key)
        lane = courier.lane
        lane.couriers -= 1
        if courier.link is not None:
            self._tools.connections.give_back(courier.link)
        if not lane.couriers and not lane.works:
            self._lanes.pop(lane.destination, None)
        if isinstance(result, Failure) and not result.check(CancelledError):
            log.failure("A courier to {destination} failed", failure=result, destination=lane.destination)
            self._tools.observer.unexpected_error()
            self._all_deferred(lane)
        if self.waiting:
            self.dispatch()
        self._moved()

    async def _go(self, courier: _Courier) -> None:
        lane, destinations = courier.lane, self._destinations
        brought = 0
        while lane.works and not self._stopping:
            # Anew for each message: with much to do a courier outlives its route and what TLS was asked for
            if not await self._find_way(courier):
                return
            if destinations.count(courier.key) > destinations.allowed(courier.key, lane.destination):
                return  # somebody was pushed back; others go on
            if not lane.works:
                return
            if brought >= TURN and self._keeps_others_waiting(courier):
                # Behind those that wait
                self._lanes[lane.destination] = self._lanes.pop(lane.destination)
                return
            work = lane.works.popleft()
            self.waiting -= 1
            if len(lane.works) < self.enough(lane):
                self._moved()
            await self._bring(courier, work)
            brought += 1

    def _keeps_others_waiting(self, courier: _Courier) -> bool:
        """Whether there is mail to another destination that nobody brings because there are as many
        connections as there may be, in all or to these hosts."""
        none_free = self._destinations.free <= 0
        return any(
            lane.works and not lane.couriers and (none_free or lane.site == courier.key)
            for lane in self._lanes.values()
            if lane is not courier.lane and not self._may_start(lane)
        )

    async def _find_way(self, courier: _Courier) -> bool:
        """Work out the route; whether messages can be brought there now."""
        lane = courier.lane
        try:
            way = await self._ways.find(lane.destination)
        except RouteFailed as failed:
            await self._no_way(courier, failed)
            return False
        if way is courier.way:
            return True
        courier.way = way
        lane.site = way.site
        if courier.link is not None:
            self._tools.connections.give_back(courier.link)
            courier.link = None
        if courier.key != way.site:
            self._destinations.closed(courier.key)
            courier.key = way.site
            self._destinations.opened(way.site)
        away = self._ways.away(way.site)
        if away is not None and lane.works and not lane.works[0].job.probe:
            await self._block(courier, away)
            return False
        return True

    async def _no_way(self, courier: _Courier, failed: RouteFailed) -> None:
        """What waits cannot be sent: for good, or until DNS answers."""
        lane = courier.lane
        why = f"{failed.code} {failed.status} {failed.why}"
        if failed.permanent:
            works = self._emptied(lane)
            for work in works:
                self._undeliverable(work.job, Outcome("failed", failed.status, None, "connect", why))
            if any(work.job.probe for work in works):
                # It was left alone because nobody knew; the rest may hear of it at once
                await self._ledger.told(self._tools.queue.unblock(lane.destination))
            return
        if lane.works:
            work = lane.works.popleft()
            self.waiting -= 1
            self._undeliverable(work.job, Outcome("deferred", failed.status, None, "connect", why))
        await self._block(courier, why)

    def _undeliverable(self, job: Job, outcome: Outcome) -> None:
        self._ledger.settle(job, [self._tools.verdicts.of(job, one, outcome) for one in job.recipients])

    def _all_deferred(self, lane: Lane) -> None:
        """Something unforeseen happened on the way: try all of it later, rather than again and again."""
        for work in self._emptied(lane):
            outcome = Outcome("deferred", FAULT.status, None, "connect", FAULT.why)
            self._undeliverable(work.job, outcome)

    # One message

    async def _bring(self, courier: _Courier, work: Work) -> None:
        assert courier.way is not None
        job, way, link = work.job, courier.way, courier.link
        if "REQUIRETLS" in job.parameters:
            # Over a connection of its own: most are not good enough for it
            way, link = replace(way, require_tls=True), None
        else:
            courier.link = None
        attempt = courier.attempt = Attempt(self._tools, work)
        try:
            link = await self._try(job, attempt, way, link)
        except CancelledError:
            await self._write(courier, job, attempt)
            raise
        finally:
            courier.attempt = None
        if way.require_tls:
            if link is not None:
                self._tools.connections.give_back(link)
        elif link is not None and link.reusable:
            courier.link = link
        elif link is not None:
            link.connection.quit()
        await self._write(courier, job, attempt)
        await self._learn(courier, job, attempt, way)

    async def _try(self, job: Job, attempt: Attempt, way: Way, link: Link | None) -> Link | None:
        """The connection that may be used for the next job; whatever goes wrong is in ``attempt``."""
        try:
            return await attempt.run(way, link)
        except CancelledError:
            raise
        except ArchiveError as error:
            log.error("Message {id} cannot be sent: {why}", id=job.message_id, why=str(error))
            attempt.defer_rest("the message cannot be read here at the moment")
        except DatabaseError as error:
            log.debug("Message {id} cannot be sent: {why}", id=job.message_id, why=str(error))
            await deferLater(self._clock, RETREAT)
        except Exception:
            log.failure("Message {id} to {destination}", id=job.message_id, destination=job.destination)
            self._tools.observer.unexpected_error()
            attempt.defer_rest(FAULT.why)
        return None

    async def _write(self, courier: _Courier, job: Job, attempt: Attempt) -> None:
        # First of all, and without waiting: a result that is lost is a message sent twice
        self._ledger.settle(job, attempt.results)
        if attempt.left and not attempt.committed:
            rest = replace(job, recipients=tuple(attempt.left))
            courier.telling = True
            try:
                await self._ledger.told(self._tools.queue.give_back([rest]))
            finally:
                courier.telling = False

    async def _learn(self, courier: _Courier, job: Job, attempt: Attempt, way: Way) -> None:
        """What this try says about the destination."""
        lane = courier.lane
        if attempt.pushed_back:
            self._destinations.pushed_back(courier.key)
        if attempt.connected:
            if any(result.verdict == "delivered" for result in attempt.results):
                self._destinations.took_mail(courier.key, lane.destination)
                self._reinforce(lane)
            if job.probe:
                await self._ledger.told(self._tools.queue.unblock(lane.destination))
        elif not way.require_tls and any(result.verdict == "deferred" for result in attempt.results):
            reason = attempt.results[0].reply or "unreachable"
            self._destinations.pushed_back(courier.key)
            self._ways.is_away(courier.key, reason)
            courier.way = None
            await self._block(courier, reason)

    async def _block(self, courier: _Courier, reason: str) -> None:
        """Leave the destination alone, and give back what was to go there."""
        lane = courier.lane
        log.info("{destination} is left alone for a while: {why}", destination=lane.destination, why=reason)
        unused = [work.job for work in self._emptied(lane)]
        first = min(FIRST_BLOCK, self._schedule.pause(1))
        longest = max(first, min(LONGEST_BLOCK, max(self._schedule.delays, default=LONGEST_BLOCK)))
        courier.telling = True
        try:
            await self._ledger.told(
                self._tools.queue.block(lane.destination, reason, first=first, longest=longest)
            )
            await self._ledger.give_back(unused)
        finally:
            courier.telling = False

    def _emptied(self, lane: Lane) -> list[Work]:
        works, lane.works = list(lane.works), deque()
        self.waiting -= len(works)
        return works
