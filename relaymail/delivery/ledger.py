"""Writes down what became of jobs: many in one statement, and nothing that is lost on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relaymail.delivery.observer import Observer
from relaymail.store.database import DatabaseError
from relaymail.store.queue import Job, Queue, Settlement

log = Logger()

GATHER: Final = 0.03
"""Seconds for which results are gathered before they are written: nobody waits for them, and a statement for
many costs a tenth."""
SHOWN: Final = 200
"""Characters of a reply that are logged."""


class Ledger:
    """Knows what is claimed and not yet settled or given back.

    :param settled: called when results were written, with whether a report is owed.
    """

    def __init__(
        self, queue: Queue, observer: Observer, *, clock: Any, settled: Callable[[bool], None]
    ) -> None:
        self._queue = queue
        self._observer = observer
        self._clock = clock
        self._settled = settled
        self._held: dict[int, Job] = {}
        self._results: list[tuple[Job, list[Settlement]]] = []
        self._timer: Any = None
        self._writing: set[Deferred[None]] = set()

    @property
    def held(self) -> list[Job]:
        """Everything whose lease has to be kept."""
        return list(self._held.values())

    @property
    def under_way(self) -> list[Deferred[None]]:
        """Statements that have to be waited for."""
        return list(self._writing)

    def hold(self, job: Job) -> None:
        """A job was claimed."""
        self._held[id(job)] = job

    def forget(self, job: Job) -> None:
        """It is nothing of ours any more."""
        self._held.pop(id(job), None)

    def settle(self, job: Job, results: list[Settlement]) -> None:
        """Write results; returns at once. The lease is kept until it is done."""
        if not results:
            self.forget(job)
            return
        self._results.append((job, results))
        if self._timer is None:
            self._timer = self._clock.callLater(GATHER, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        gathered, self._results = self._results, []
        if gathered:
            writing = Deferred.fromCoroutine(self.write(gathered))
            self._writing.add(writing)
            writing.addBoth(lambda _: self._writing.discard(writing))

    async def write(self, gathered: Sequence[tuple[Job, list[Settlement]]]) -> None:
        """Write results now. Raises nothing: what cannot be written is logged."""
        for _, results in gathered:
            for verdict in {result.verdict for result in results}:
                self._observer.delivered(verdict, sum(result.verdict == verdict for result in results))
        everything = [result for _, results in gathered for result in results]
        try:
            ours = await self._queue.settle(everything)
        except DatabaseError as error:
            log.error("What became of {count} messages is not written: {why}", count=len(gathered), why=error)
            return
        except Exception:
            ids = [str(job.message_id) for job, _ in gathered]
            log.failure("What became of {ids} is not written", ids=ids)
            self._observer.unexpected_error()
            return
        finally:
            for job, _ in gathered:
                self.forget(job)
        for job, results in gathered:
            _log(job, results, ours)
        self._settled(any(result.owes for result in everything))

    async def give_back(self, jobs: Iterable[Job]) -> None:
        """Give back what was not tried. Where the database does not answer, the leases end by themselves."""
        unused = list(jobs)
        if unused:
            await self.told(self._queue.give_back(unused))
        for job in unused:
            self.forget(job)

    async def told(self, statement: Awaitable[Any]) -> None:
        """Tell the queue what it also finds out by itself, later."""
        try:
            await statement
        except DatabaseError as error:
            log.debug("The queue could not be told: {why}", why=str(error))


def _log(job: Job, results: list[Settlement], ours: set[int]) -> None:
    for result in results:
        log.info(
            "Message {id} {verdict} to {host}: {status} {reply}{lost}",
            id=job.message_id,
            verdict=result.verdict,
            host=result.host or job.destination,
            status=result.status,
            reply=" ".join((result.reply or "").split())[:SHOWN],
            recipient=result.id,
            lost="" if result.id in ours else " (another worker had it by then)",
        )
