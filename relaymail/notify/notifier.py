"""Sends what is in the outbox: one loop that claims rows and keeps a bounded number of requests in flight.

It shares the reactor with the engine that accepts mail, so it is built to be polite: while the endpoint is
down it costs one request per probe; while there is nothing to do, one claim per poll; under load, a claim per
:data:`PACE` or per full batch, and few requests at a time. The poll is what makes it right, hints only make
it quick.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.notify import schedule
from relaymail.notify.breaker import Breaker, EndpointState
from relaymail.notify.connection import Connections
from relaymail.notify.endpoint import DEADLINE, Endpoint
from relaymail.notify.governor import Governor
from relaymail.notify.ledger import Ledger
from relaymail.notify.outcome import Outcome, Verdict
from relaymail.settings import Secret
from relaymail.store import outbox
from relaymail.store.database import Database, DatabaseError
from relaymail.store.outbox import OutboxRow
from relaymail.store.waker import Waker
from relaymail.telemetry.spans import Tracer

log = Logger()

POLL = 5.0
"""Seconds after which the outbox is looked at without a hint."""

PACE = 0.05
"""Seconds between two claims that do not fill a batch: under load each then finds many rows, not one."""

BATCH = 50
"""Rows of one claim."""

CONCURRENCY = 8
"""Requests in flight at most."""

LEASE = 60.0
"""Seconds for which a claimed row is ours; what is not begun in time for its deadline is given back."""

MARGIN = 5.0
"""Seconds of a lease that are left for writing down the outcome."""

BACKLOG = 4 * BATCH
"""Unwritten outcomes above which nothing more is claimed."""

RETREAT = 1.0
"""Seconds for which a database that did not answer is left alone."""

DUE_LIMIT = 1000
"""So many coming due times are remembered; the poll finds the others."""

DUE_SLACK = 0.01
"""Seconds added to a due time, which is PostgreSQL's: a claim that comes a moment early finds nothing."""

LAST_WRITE = 3.0
"""Seconds for the last outcomes to be written when we stop."""

QUIET = 60.0
"""Seconds between two log lines about refused rows."""


class Notifier:
    """The worker of the outbox.

    ``on_result`` is called for each attempt with ``sent``, ``refused`` or ``unavailable``, and with ``dead``
    for each row given up. ``tracer`` traces the calls for messages that are traced. ``crash`` is called with
    the name of a point at which tests kill the process. ``agent`` replaces our own connections. ``poll``,
    ``deadline`` (of one request) and ``lease`` are in seconds. Raises ``ValueError`` for a ``base_url`` that
    is not an http(s) URL, and for a ``lease`` that does not outlive a request.
    """

    def __init__(
        self,
        database: Database,
        *,
        base_url: str,
        api_key: Secret | None,
        reactor: Any,
        agent: Any = None,
        crash: Callable[[str], None] = lambda point: None,
        on_result: Callable[[str], None] = lambda result: None,
        tracer: Tracer | None = None,
        poll: float = POLL,
        deadline: float = DEADLINE,
        lease: float = LEASE,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._database = database
        self._clock = reactor
        self._connections = Connections(reactor, concurrency)
        self._endpoint = Endpoint(
            base_url, api_key, agent=agent or self._connections.agent, clock=reactor, deadline=deadline
        )
        self._breaker = Breaker(reactor, self._endpoint.where)
        self._ledger = Ledger(database, clock=reactor, crash=crash, due=self._coming_due, written=self._wake)
        self._waker = Waker(reactor)
        self._crash = crash
        self._on_result = on_result
        self._tracer = tracer
        self._poll = poll
        self._lease = lease
        self._margin = deadline + MARGIN
        if lease <= self._margin:
            raise ValueError(f"a lease of {lease:g} s is too short for requests of {deadline:g} s")
        self._governor = Governor(reactor, concurrency)
        self._ready: deque[OutboxRow] = deque()
        self._ready_until = 0.0
        self._in_flight: dict[Deferred[None], int] = {}
        self._hinted = True
        self._due: list[float] = []
        self._poll_at = 0.0
        self._not_before = 0.0
        self._quiet_until = 0.0
        self._stopping = False
        self._aborting = False
        self._loop: Deferred[None] | None = None

    @property
    def endpoint(self) -> EndpointState:
        """How the API stands with us, for health and status pages."""
        return self._breaker.state

    def start(self) -> None:
        """Begin to work; the database may still be away."""
        self._database.listen(outbox.CHANNEL, lambda _: self.hint())
        self._loop = Deferred.fromCoroutine(self._run())

    def hint(self) -> None:
        """Something was committed to the outbox. Cheap: call it after each commit."""
        if not self._hinted:
            self._hinted = True
            self._waker.wake()

    async def stop(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - no asyncio here
        """Claim no more, let requests in flight finish for ``timeout`` seconds, give everything else back.

        Takes a few seconds longer at most where the database or the API does not answer.
        """
        self._stopping = True
        self._wake()
        if self._loop is not None:
            await self._within(timeout, self._loop)
        self._give_back()
        await self._within(timeout, DeferredList(list(self._in_flight)))
        self._aborting = True
        for attempt in list(self._in_flight):
            attempt.cancel()
        await self._within(LAST_WRITE, Deferred.fromCoroutine(self._ledger.flush()))
        self._ledger.close()
        await self._within(LAST_WRITE, Deferred.fromCoroutine(self._connections.close()))

    async def _run(self) -> None:
        while not self._stopping:
            try:
                wait = await self._turn()
            except DatabaseError as error:
                log.debug("The outbox could not be read: {error}", error=type(error).__name__)
                wait = self._retreat()
            except Exception:
                log.failure("The outbox could not be read")
                wait = self._retreat()
            if not self._stopping:
                await self._waker.sleep(wait)

    async def _turn(self) -> float:
        """Do what can be done now. Returns the seconds until there may be more, unless something wakes us."""
        self._begin_ready()
        while self._wants_rows() and self._claim_wait() == 0:
            await self._claim()
            self._begin_ready()
        return self._claim_wait() if self._wants_rows() else self._poll

    def _retreat(self) -> float:
        """Leave the database alone for a moment. Returns for how long."""
        self._not_before = self._clock.seconds() + RETREAT
        # What the last hint was about has not been seen
        self._hinted = True
        return RETREAT

    def _wants_rows(self) -> bool:
        """Whether there is room for more; if not, the end of a request or of a write wakes the loop."""
        if self._stopping or self._ready or not self._has_room():
            return False
        if self._ledger.failing or len(self._ledger) >= BACKLOG:
            return False
        return not (self._breaker.open and self._probing())

    def _has_room(self) -> bool:
        return len(self._in_flight) < self._governor.allowed()

    def _probing(self) -> bool:
        return self._breaker.epoch in self._in_flight.values()

    def _claim_wait(self) -> float:
        """Seconds until the next claim."""
        now: float = self._clock.seconds()
        next_due = self._due[0] if self._due else self._poll_at
        wanted = now if self._hinted else min(self._poll_at, next_due)
        return max(wanted - now, self._not_before - now, self._breaker.pause(), 0.0)

    async def _claim(self) -> None:
        limit = 1 if self._breaker.open else BATCH
        began = self._clock.seconds()
        self._hinted = False
        while self._due and self._due[0] <= began:
            heapq.heappop(self._due)
        self._crash("before-claim")
        rows = await outbox.claim(self._database, limit, self._lease)
        now = self._clock.seconds()
        if len(rows) < limit:
            self._poll_at = now + self._poll
            self._not_before = now + PACE
        else:
            self._poll_at = now
        self._ready.extend(rows)
        self._ready_until = began + self._lease - self._margin
        if self._stopping or self._breaker.pause() > 0:
            self._give_back()

    def _begin_ready(self) -> None:
        """Send as many of the claimed rows as may be in flight."""
        if self._ready and self._clock.seconds() > self._ready_until:
            # Another worker could take over a row while we are still sending it
            self._give_back()
        while self._ready and self._has_room() and not self._stopping:
            epoch = self._breaker.epoch
            attempt = Deferred.fromCoroutine(self._attempt(self._ready.popleft(), epoch))
            self._in_flight[attempt] = epoch
            attempt.addBoth(self._ended, attempt)

    def _give_back(self) -> None:
        while self._ready:
            self._ledger.unused(self._ready.popleft())

    async def _attempt(self, row: OutboxRow, epoch: int) -> None:
        outcome = await self._post(row)
        if outcome.verdict is Verdict.SENT:
            self._crash("after-notify")
            self._ledger.sent(row)
        elif self._aborting:
            self._ledger.unused(row)
            return
        else:
            self._not_sent(row, outcome)
        log.debug(
            "Notification {notification} of message {id}, e-mail {email}: {result}",
            notification=row.id,
            id=row.message_id,
            email=row.email_id,
            result=outcome.verdict.value,
        )
        self._on_result(outcome.verdict.value)
        self._breaker.record(outcome, epoch)
        if self._breaker.open:
            self._give_back()

    async def _post(self, row: OutboxRow) -> Outcome:
        span = self._tracer.notification(row.message_id) if self._tracer else None
        if span is None:
            return await self._endpoint.post(row.payload)
        outcome = await self._endpoint.post(row.payload, span.traceparent)
        span.end(None if outcome.verdict is Verdict.SENT else outcome.verdict.value)
        return outcome

    def _not_sent(self, row: OutboxRow, outcome: Outcome) -> None:
        dead = row.age >= schedule.LIFE
        if dead:
            self._ledger.dead(row, outcome.reason)
            self._on_result("dead")
        else:
            self._ledger.failed(row, outcome.reason, schedule.delay(row.attempts, outcome))
        now = self._clock.seconds()
        if (dead or outcome.verdict is Verdict.REFUSED) and now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warn(
                "Notification {notification} of message {id} was {what}: {reason}. More of these are not"
                " logged for {seconds:g} s",
                notification=row.id,
                id=row.message_id,
                what="given up" if dead else "refused",
                reason=outcome.reason,
                seconds=QUIET,
            )

    def _ended(self, result: object, attempt: Deferred[None]) -> None:
        del self._in_flight[attempt]
        if isinstance(result, Failure):
            log.failure("An attempt broke off; its row comes back when the lease ends", failure=result)
        self._wake()

    def _coming_due(self, delay: float) -> None:
        """Something will be due in ``delay`` seconds: too soon for the poll, mostly."""
        if len(self._due) < DUE_LIMIT:
            heapq.heappush(self._due, self._clock.seconds() + delay + DUE_SLACK)

    def _wake(self) -> None:
        self._waker.wake()

    async def _within(self, seconds: float, awaited: Deferred[Any]) -> None:
        """Wait until ``awaited`` has ended, for at most so many seconds."""
        over: Deferred[None] = Deferred()
        timer = self._clock.callLater(seconds, over.callback, None)

        def ended(_: object) -> None:
            if timer.active():
                timer.cancel()
                over.callback(None)

        awaited.addBoth(ended)
        await over
