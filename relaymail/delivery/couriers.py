"""Brings claimed messages out: each connection has a courier, who takes one message of its destination after
the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, get_args

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.delivery.attempt import Attempt, Tools
from relaymail.delivery.connections import Link, Way
from relaymail.delivery.contents import Work
from relaymail.delivery.destinations import Destinations
from relaymail.delivery.retry import Schedule
from relaymail.delivery.route import Relay, RouteFailed, Router
from relaymail.delivery.tls_policy import Override, OverrideTLS
from relaymail.smtp.client import Outcome
from relaymail.store.archive import ArchiveError
from relaymail.store.cache import TimedCache
from relaymail.store.database import DatabaseError
from relaymail.store.outgoing import DestinationSettings
from relaymail.store.queue import Job, QueuedRecipient, Settlement

log = Logger()

FIRST_BLOCK: Final = 60.0
LONGEST_BLOCK: Final = 3600.0
"""Seconds for which a destination is left alone whose hosts cannot be reached: at first, and at last."""
AWAY: Final = 30.0
"""Seconds for which hosts that could not be reached are not tried for other domains that have the same."""
SITES_AWAY: Final = 1000
WAY_SECONDS: Final = 30.0
"""Seconds for which a route is taken again without asking: the names are in the resolver's cache, but asking
that for each message costs more than to send it."""
WAYS: Final = 1000
WORTH: Final = 2
"""Jobs that must wait for each connection of a destination before another one is opened."""
GATHER: Final = 0.03
"""Seconds for which results are gathered before they are written: nobody waits for them, and a statement for
many costs a tenth."""
RELAY_PORT: Final = 587
_TLS: Final = get_args(OverrideTLS)


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
    way: Way | None = None
    link: Link | None = None


class Couriers:
    """Holds what was claimed until it is settled or given back.

    :param settings: what operators have set for destinations.
    :param settled: called when results were written, with whether a report is owed.
    :param moved: called when there is room for more.
    """

    def __init__(
        self,
        tools: Tools,
        *,
        router: Router,
        destinations: Destinations,
        schedule: Schedule,
        clock: Any,
        settings: Callable[[], Mapping[str, DestinationSettings]],
        settled: Callable[[bool], None],
        moved: Callable[[], None],
    ) -> None:
        self._tools = tools
        self._clock = clock
        self._router = router
        self._destinations = destinations
        self._schedule = schedule
        self._settings = settings
        self._settled = settled
        self._moved = moved
        self._lanes: dict[str, Lane] = {}
        self._running: dict[Deferred[None], _Courier] = {}
        self._settling: set[Deferred[None]] = set()
        self._results: list[tuple[Job, list[Settlement]]] = []
        self._gathering: Any = None
        self._held: dict[int, Job] = {}
        self._ways: TimedCache[str, Way] = TimedCache(clock, lifetime=WAY_SECONDS, size=WAYS)
        self._away: dict[str, tuple[float, str]] = {}
        self._stopping = False
        self.waiting = 0
        """Jobs that no courier has taken yet."""

    # What is there

    @property
    def held(self) -> list[Job]:
        """Everything whose lease has to be kept."""
        return list(self._held.values())

    @property
    def active(self) -> int:
        """Couriers under way."""
        return len(self._running)

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
            self._held[id(work.job)] = work.job
            self.waiting += 1
        self.dispatch()

    def dispatch(self) -> None:
        """Send out as many couriers as may go: one to each destination before any gets a second."""
        lanes = list(self._lanes.values())
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
                    self._forget(work.job)
            self.waiting -= len(lane.works) - len(kept)
            lane.works = deque(kept)

    def begin_stop(self) -> list[Job]:
        """Start nothing more, and end what is not behind its final dot. Returns what was not begun."""
        self._stopping = True
        unused = [work.job for lane in self._lanes.values() for work in self._emptied(lane)]
        for running, courier in list(self._running.items()):
            if courier.attempt is None or not courier.attempt.committed:
                running.cancel()
        return unused

    def cut(self) -> None:
        """End what is behind its final dot as well; it is in doubt then, when its lease ends."""
        for running in list(self._running):
            running.cancel()

    def under_way(self) -> list[Deferred[None]]:
        """What has to be waited for."""
        return [*self._running, *self._settling]

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
        if running.called:
            self._gone(None, running, courier)
        else:
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
        if self.waiting:
            self.dispatch()
        self._moved()

    async def _go(self, courier: _Courier) -> None:
        lane, destinations = courier.lane, self._destinations
        while lane.works and not self._stopping:
            if courier.way is None and not await self._find_way(courier):
                return
            if destinations.count(courier.key) > destinations.allowed(courier.key, lane.destination):
                return  # somebody was pushed back; others go on
            if not lane.works:
                return
            work = lane.works.popleft()
            self.waiting -= 1
            if len(lane.works) < self.enough(lane):
                self._moved()
            await self._bring(courier, work)

    async def _find_way(self, courier: _Courier) -> bool:
        """Work out the route; whether messages can be brought there now."""
        lane = courier.lane
        way = self._ways.get(lane.destination)
        if way is None:
            override = self._override(lane.destination)
            try:
                way = Way(await self._router.route(lane.destination, override.relay), override)
            except RouteFailed as failed:
                await self._no_way(courier, failed)
                return False
            self._ways.put(lane.destination, way)
        courier.way = way
        site = way.site
        lane.site = site
        if courier.key != site:
            self._destinations.closed(courier.key)
            courier.key = site
            self._destinations.opened(site)
        away = self._away.get(site)
        probes = bool(lane.works) and lane.works[0].job.probe
        if away is not None and away[0] > self._tools.seconds() and not probes:
            await self._block(lane, away[1])
            return False
        return True

    def _override(self, destination: str) -> Override:
        found = self._settings().get(destination)
        if found is None:
            return Override()
        relay = None if found.relay_host is None else Relay(found.relay_host, found.relay_port or RELAY_PORT)
        return Override(cast(OverrideTLS, found.tls_level) if found.tls_level in _TLS else None, relay)

    async def _no_way(self, courier: _Courier, failed: RouteFailed) -> None:
        """What waits cannot be sent: for good, or until DNS answers."""
        lane = courier.lane
        why = f"{failed.code} {failed.status} {failed.why}"
        if failed.permanent:
            for work in self._emptied(lane):
                self._undeliverable(work.job, Outcome("failed", failed.status, None, "connect", why))
            return
        if lane.works:
            work = lane.works.popleft()
            self.waiting -= 1
            self._undeliverable(work.job, Outcome("deferred", failed.status, None, "connect", why))
        await self._block(lane, why)

    def _undeliverable(self, job: Job, outcome: Outcome) -> None:
        self._settle(job, [self._tools.verdicts.of(job, one, outcome) for one in job.recipients])

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
            link = await attempt.run(way, link)
        except CancelledError:
            if not attempt.committed:
                await self._write(job, attempt)
            raise
        except (DatabaseError, ArchiveError) as error:
            self._broken(job, attempt, error)
            link = None
        except Exception:
            log.failure("Message {id} to {destination}", id=job.message_id, destination=job.destination)
            self._tools.observer.unexpected_error()
            self._deferred(job, attempt, "4.3.0", "an internal error")
            link = None
        finally:
            courier.attempt = None
        if way.require_tls:
            if link is not None:
                self._tools.connections.give_back(link)
        elif link is not None and link.reusable:
            courier.link = link
        elif link is not None:
            link.connection.quit()
        await self._write(job, attempt)
        await self._learn(courier, job, attempt, way)

    def _broken(self, job: Job, attempt: Attempt, error: Exception) -> None:
        """Our own side failed. A message that cannot be read is nothing that a quick retry mends."""
        if isinstance(error, ArchiveError):
            log.error("Message {id} cannot be sent: {why}", id=job.message_id, why=str(error))
            self._deferred(job, attempt, "4.3.0", "the message cannot be read here at the moment")

    def _deferred(self, job: Job, attempt: Attempt, status: str, why: str) -> None:
        """Defer whoever has no result yet."""
        outcome = Outcome("deferred", status, None, "local", why, in_doubt=attempt.committed)
        for recipient in _left(job, attempt):
            attempt.results.append(self._tools.verdicts.of(job, recipient, outcome))

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
                await self._guarded(self._tools.queue.unblock(lane.destination))
        elif not way.require_tls and any(result.verdict == "deferred" for result in attempt.results):
            reason = attempt.results[0].reply or "unreachable"
            self._destinations.pushed_back(courier.key)
            if len(self._away) >= SITES_AWAY:
                self._away.clear()
            self._away[courier.key] = (self._tools.seconds() + AWAY, reason)
            courier.way = None
            self._ways.discard(lambda way: way.site == courier.key)
            await self._block(lane, reason)

    async def _block(self, lane: Lane, reason: str) -> None:
        """Leave the destination alone, and give back what was to go there."""
        log.info("{destination} is left alone for a while: {why}", destination=lane.destination, why=reason)
        unused = [work.job for work in self._emptied(lane)]
        first = min(FIRST_BLOCK, self._schedule.pause(1))
        longest = max(first, min(LONGEST_BLOCK, max(self._schedule.delays, default=LONGEST_BLOCK)))
        await self._guarded(self._tools.queue.block(lane.destination, reason, first=first, longest=longest))
        await self.give_back(unused)

    # Writing it down

    async def give_back(self, jobs: Iterable[Job]) -> None:
        """Give back what was not tried. Where the database does not answer, the leases end by themselves."""
        unused = list(jobs)
        if unused:
            await self._guarded(self._tools.queue.give_back(unused))
        for job in unused:
            self._forget(job)

    async def _write(self, job: Job, attempt: Attempt) -> None:
        # First of all, and without waiting: a result that is lost is a message sent twice
        self._settle(job, attempt.results)
        left = _left(job, attempt)
        if left and not attempt.committed:
            await self._guarded(self._tools.queue.give_back([replace(job, recipients=tuple(left))]))

    def _settle(self, job: Job, results: list[Settlement]) -> None:
        """Write results; the courier does not wait for it. The lease is kept until it is done."""
        if not results:
            self._forget(job)
            return
        for verdict in {result.verdict for result in results}:
            self._tools.observer.delivered(verdict, sum(result.verdict == verdict for result in results))
        self._results.append((job, results))
        if self._gathering is None:
            self._gathering = self._clock.callLater(GATHER, self.flush)

    def flush(self) -> None:
        """Write the results that were gathered."""
        if self._gathering is not None and self._gathering.active():
            self._gathering.cancel()
        self._gathering = None
        gathered, self._results = self._results, []
        if gathered:
            settling = Deferred.fromCoroutine(self._settle_now(gathered))
            if not settling.called:
                self._settling.add(settling)
                settling.addBoth(lambda _: self._settling.discard(settling))

    async def _settle_now(self, gathered: list[tuple[Job, list[Settlement]]]) -> None:
        everything = [result for _, results in gathered for result in results]
        try:
            ours = await self._tools.queue.settle(everything)
        except DatabaseError as error:
            log.error("What became of {count} messages is not written: {why}", count=len(gathered), why=error)
            return
        except Exception:
            log.failure(
                "What became of {ids} is not written", ids=[str(job.message_id) for job, _ in gathered]
            )
            self._tools.observer.unexpected_error()
            return
        finally:
            for job, _ in gathered:
                self._forget(job)
        for job, results in gathered:
            _log_results(job, results, ours)
        self._settled(any(result.owes for result in everything))

    def _forget(self, job: Job) -> None:
        self._held.pop(id(job), None)

    def _emptied(self, lane: Lane) -> list[Work]:
        works, lane.works = list(lane.works), deque()
        self.waiting -= len(works)
        return works

    async def _guarded(self, statement: Awaitable[Any]) -> None:
        """What the queue also finds out by itself, later."""
        try:
            await statement
        except DatabaseError as error:
            log.debug("The queue could not be told: {why}", why=str(error))


def _left(job: Job, attempt: Attempt) -> list[QueuedRecipient]:
    """Recipients without a result."""
    done = {result.id for result in attempt.results}
    return [recipient for recipient in job.recipients if recipient.id not in done]


def _log_results(job: Job, results: list[Settlement], ours: set[int]) -> None:
    for result in results:
        log.info(
            "Message {id} {verdict} to {host}: {status} {reply}{lost}",
            id=job.message_id,
            verdict=result.verdict,
            host=result.host or job.destination,
            status=result.status,
            reply=" ".join((result.reply or "").split())[:200],
            recipient=result.id,
            lost="" if result.id in ours else " (another worker had it by then)",
        )
