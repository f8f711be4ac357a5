"""The worker of the queue: claims what it can send, keeps the leases, and says when a report is owed.

It shares the reactor with the listeners. The poll is what makes it right, hints only make it quick.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.delivery.contents import Contents
from relaymail.delivery.couriers import Couriers
from relaymail.delivery.known import Clock, DestinationsSet
from relaymail.delivery.ledger import Ledger
from relaymail.delivery.retry import Schedule
from relaymail.delivery.verdicts import Verdicts
from relaymail.store.database import Database, DatabaseError
from relaymail.store.queue import CHANNEL, LEASE, Queue
from relaymail.store.queue_rows import RECIPIENTS
from relaymail.store.queue_warnings import warn_of_delays
from relaymail.store.waker import Waker

log = Logger()

BATCH: Final = 100
"""Rows of one claim."""
SHARE: Final = 5
"""Rows of one destination in a claim; more of them only of the same messages."""
PACE: Final = 0.02
"""Seconds between two claims: under load each then finds many rows."""
HEARTBEAT: Final = LEASE / 4
"""Seconds between two looks at the leases."""
UPKEEP: Final = 60.0
"""Seconds between two looks for what nobody else looks for."""
REPAIRS: Final = 60
"""So many of them later the queue is repaired, for what nobody foresaw."""
RETREAT: Final = 1.0
"""Seconds for which a database that did not answer is left alone."""
LONGEST_LIFE: Final = 100 * 365 * 86400.0
GRACE: Final = 30.0
"""Seconds that hosts have for their reply to a final dot when we stop."""
LAST_WRITE: Final = 5.0
"""Seconds for the last results to be written."""


class Runner:
    """Works the queue from :meth:`start` to :meth:`stop`.

    :param concurrency: messages being sent at a time.
    :param poll: seconds after which the queue is looked at without a hint.
    :param owed: called when a report is owed.
    """

    def __init__(
        self,
        database: Database,
        queue: Queue,
        couriers: Couriers,
        ledger: Ledger,
        contents: Contents,
        verdicts: Verdicts,
        *,
        schedule: Schedule,
        clock: Clock,
        settings: DestinationsSet,
        owed: Callable[[], None],
        reactor: Any,
        poll: float,
        concurrency: int,
    ) -> None:
        self._database = database
        self._queue = queue
        self._couriers = couriers
        self._ledger = ledger
        self._contents = contents
        self._verdicts = verdicts
        self._schedule = schedule
        self._clock = clock
        self._settings = settings
        self._owed = owed
        self._reactor = reactor
        self._poll = poll
        self._concurrency = concurrency
        self._waker = Waker(reactor)
        self._loop: Deferred[None] | None = None
        self._returning: list[Deferred[None]] = []
        """What a stop gives back at once."""
        self._hinted = True
        self._poll_at = 0.0
        self._not_before = 0.0
        self._more: set[str] = set()
        """Destinations that may have more than was claimed."""
        self._stopping = False
        self._upkeeps = 0
        self._heart = LoopingCall(self._beat)
        self._heart.clock = reactor
        self._upkeep = LoopingCall(self._look_after)
        self._upkeep.clock = reactor

    def start(self) -> None:
        """Begin to work; the database may be away."""
        self._database.listen(CHANNEL, lambda _: self.hint())
        self._loop = Deferred.fromCoroutine(self._run())
        self._heart.start(HEARTBEAT, now=False)
        self._upkeep.start(UPKEEP)

    def hint(self) -> None:
        """Something was queued. Cheap: call it behind each commit."""
        if not self._hinted:
            self._hinted = True
            self._waker.wake()

    def wake(self) -> None:
        """There may be room for more."""
        self._waker.wake()

    def settled(self, owes: bool) -> None:
        """Results were written."""
        if owes:
            self._owed()
        self.wake()

    # Stop

    def begin_stop(self) -> None:
        """Claim no more, and end what is not behind its final dot. Returns at once."""
        if self._stopping:
            return
        self._stopping = True
        if self._upkeep.running:
            self._upkeep.stop()
        self._waker.wake()
        unused = self._couriers.begin_stop()
        if unused:
            returning = Deferred.fromCoroutine(self._ledger.give_back(unused))
            self._returning = [returning.addErrback(self._failed)]

    async def stop(self, grace: float = GRACE) -> None:
        """Let what is behind its final dot end for ``grace`` seconds, and what has come of it be written."""
        self.begin_stop()
        await self._within(LAST_WRITE, [*self._returning, *([] if self._loop is None else [self._loop])])
        # What was claimed at the last moment
        await self._ledger.give_back(self._couriers.begin_stop())
        await self._within(grace, self._couriers.under_way())
        self._couriers.cut()
        self._ledger.flush()
        await self._within(LAST_WRITE, self._couriers.under_way())
        self._queue.stop()
        if self._heart.running:
            self._heart.stop()

    async def _within(self, seconds: float, awaited: list[Deferred[None]]) -> None:
        """Wait until all have ended, for at most so many seconds."""
        if not awaited:
            return
        over: Deferred[None] = Deferred()
        timer = self._reactor.callLater(seconds, over.callback, None)

        def ended(_: object) -> None:
            if timer.active():
                timer.cancel()
                over.callback(None)

        DeferredList(awaited, consumeErrors=True).addBoth(ended)
        await over

    # Claims

    async def _run(self) -> None:
        while not self._stopping:
            try:
                wait = await self._turn()
            except DatabaseError as error:
                log.debug("The queue could not be read: {why}", why=str(error))
                wait = self._retreat()
            except Exception:
                log.failure("The queue could not be read")
                wait = self._retreat()
            if not self._stopping:
                await self._waker.sleep(wait)

    async def _turn(self) -> float:
        """Claim what can be sent now; the seconds until there may be more, unless something wakes us."""
        if not self._clock.known:
            await self._clock.ask(self._database)
            await self._settings.read(self._database)
        while self._wants_more() and self._claim_wait() == 0:
            await self._claim()
        return self._claim_wait() if self._wants_more() else self._poll

    def _retreat(self) -> float:
        self._not_before = self._reactor.seconds() + RETREAT
        self._hinted = True
        return RETREAT

    def _wants_more(self) -> bool:
        return not self._stopping and not self._queue.failing and self._couriers.waiting < self._concurrency

    def _claim_wait(self) -> float:
        now: float = self._reactor.seconds()
        short = any(self._couriers.is_short(destination) for destination in self._more)
        wanted = now if self._hinted or short else self._poll_at
        return max(wanted - now, self._not_before - now, 0.0)

    async def _claim(self) -> None:
        self._hinted = False
        busy = self._couriers.well_supplied()
        limit = min(BATCH, max(2 * self._concurrency - self._couriers.waiting, 1))
        jobs = await self._queue.claim(limit, share=SHARE, busy=busy, along=RECIPIENTS)
        now: float = self._reactor.seconds()
        self._not_before = now + PACE
        rows: dict[str, int] = {}
        for job in jobs:
            rows[job.destination] = rows.get(job.destination, 0) + len(job.recipients)
        self._more = {*busy, *(destination for destination, count in rows.items() if count >= SHARE)}
        if sum(rows.values()) >= limit:
            self._hinted = True
        else:
            self._poll_at = now + self._poll
        try:
            works = await self._contents.read_ahead(jobs)
        except DatabaseError:
            await self._ledger.give_back(jobs)
            raise
        if self._stopping:
            await self._ledger.give_back(jobs)
        else:
            self._couriers.add(works)

    # What goes on beside

    async def _beat(self) -> None:
        """Keep the leases; what is not ours any more is not begun."""
        try:
            await self._clock.ask(self._database)
            held = self._ledger.held
            if held:
                ours = await self._queue.extend(held)
                self._couriers.drop({one.id for job in held for one in job.recipients if one.id not in ours})
        except DatabaseError as error:
            log.debug("The leases could not be extended: {why}", why=str(error))
        except Exception:
            log.failure("The leases could not be extended")

    async def _look_after(self) -> None:
        try:
            if self._upkeeps % REPAIRS == 0:
                await self._queue.repair()
                self.hint()
            self._upkeeps += 1
            await self._settings.read(self._database)
            await self._expire()
            await self._warn()
        except DatabaseError as error:
            log.debug("The queue could not be looked after: {why}", why=str(error))
        except Exception:
            log.failure("The queue could not be looked after")

    async def _expire(self) -> None:
        """Give up what was not tried because its destination is blocked, and is too old by now."""
        life = min(self._schedule.longest_untried(null_sender=False), LONGEST_LIFE)
        short_life = self._schedule.longest_untried(null_sender=True)
        while not self._stopping:
            jobs = await self._queue.claim_expired(BATCH, life=life, null_sender_life=short_life)
            await self._ledger.write(
                [(job, [self._verdicts.expired(job, one) for one in job.recipients]) for job in jobs]
            )
            if sum(len(job.recipients) for job in jobs) < BATCH:
                return

    async def _warn(self) -> None:
        """Have those told of a delay whose mail nobody tries, because its destination is blocked."""
        looked_at = BATCH
        while looked_at == BATCH and not self._stopping:
            looked_at, owed = await warn_of_delays(self._database, self._schedule.warning, BATCH)
            if owed:
                self._owed()

    def _failed(self, failure: Any) -> None:
        log.failure("Stopping deliveries failed", failure=failure)
