"""The queue of mail for other hosts, as workers see it: claimed under a lease, settled once, never lost.

A row is written by the transaction that stores its message. A worker claims rows for a while (the lease),
keeps the lease alive while it works, and writes what became of them under the token of its claim: one that
was too late, and whose row another has by now, changes nothing. What a killed worker had is due again when
its lease ends. Any number of workers, processes and hosts may share a queue. All times are PostgreSQL's.

How rows are chosen, so that no destination waits for another, is told in ``007_queue.sql``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

from twisted.internet.task import deferLater
from twisted.logger import Logger

from relaymail.store.database import Database, DatabaseError, DatabaseUnavailable
from relaymail.store.group_commit import GroupCommit
from relaymail.store.queue_rows import (
    Action,
    Job,
    QueuedRecipient,
    Settlement,
    Verdict,
    jobs,
)
from relaymail.store.queue_text import bare, presentable

__all__ = [
    "CHANNEL",
    "Action",
    "Job",
    "Queue",
    "QueuedRecipient",
    "Settlement",
    "Verdict",
]

log = Logger()

CHANNEL: Final = "relaymail_queue"
"""LISTEN channel that wakes the workers; :class:`~relaymail.store.queue_hint.QueueHint` sends to it."""
LEASE: Final = 120.0
"""Seconds of a lease; extend it before two thirds of it are over."""
FIRST_BLOCK: Final = 60.0
"""Seconds for which a destination is left alone after it could not be reached; doubles each time."""
LONGEST_BLOCK: Final = 3600.0
ROWS: Final = 500
"""Rows above which a statement takes no more."""
AGAIN: Final = 1.0
"""Seconds until results are written again that the database did not take."""

_CLAIM: Final = (
    # Not a SELECT to begin with: a claim whose answer was lost is not sent twice
    "WITH claimed AS (SELECT * FROM relaymail.queue_claim(%s, %s, make_interval(secs => %s), %s, %s,"
    " %s::text[], %s::text[], %s)) SELECT * FROM claimed"
)
_CLAIM_EXPIRED: Final = (
    "WITH claimed AS (SELECT * FROM relaymail.queue_claim_expired(%s, %s, make_interval(secs => %s), %s,"
    " make_interval(secs => %s), make_interval(secs => %s))) SELECT * FROM claimed"
)
_EXTEND: Final = (
    "WITH kept AS (SELECT relaymail.queue_extend(%s::bigint[], %s::uuid[], make_interval(secs => %s)))"
    " SELECT * FROM kept"
)
_BEGIN: Final = (
    "WITH begun AS (SELECT relaymail.queue_begin_transfer(%s::bigint[], %s::uuid[], %s::text[], %s::text[],"
    " %s::text[], %s::text[])) SELECT * FROM begun"
)
_SETTLE: Final = (
    "WITH settled AS (SELECT relaymail.queue_settle(%s::bigint[], %s::uuid[], %s::text[], %s::text[],"
    " %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::float8[], %s::text[], %s::boolean[],"
    " %s::float8[])) SELECT * FROM settled"
)
_GIVE_BACK: Final = (
    "WITH returned AS (SELECT relaymail.queue_give_back(%s::bigint[], %s::uuid[])) SELECT * FROM returned"
)
_BLOCK: Final = (
    "WITH blocked AS (SELECT relaymail.queue_block(%s, %s, make_interval(secs => %s),"
    " make_interval(secs => %s))) SELECT * FROM blocked"
)
_UNBLOCK: Final = "WITH ended AS (SELECT relaymail.queue_unblock(%s)) SELECT * FROM ended"
_REPAIR: Final = "WITH repaired AS (SELECT relaymail.queue_repair()) SELECT * FROM repaired"

_Transfer = tuple[Job, Sequence[int], str, str, str | None]


class Queue:
    """The queue. Every method raises :class:`~relaymail.store.database.DatabaseError`, if not told otherwise.

    :param owner: this host and process, as an operator should see it.
    :param crash: called with ``before-settle`` and ``after-settle``; tests kill the process there.
    """

    def __init__(
        self, database: Database, *, reactor: Any, owner: str, crash: Any = lambda point: None
    ) -> None:
        self._database = database
        self._reactor = reactor
        self._owner = owner
        self._crash = crash
        self._stopped = False
        self._failing = False
        self._beginnings: GroupCommit[_Transfer, set[int]] = GroupCommit(
            self._begin, lambda transfer: len(transfer[1]), reactor.seconds, heaviest=ROWS
        )
        self._results: GroupCommit[Sequence[Settlement], set[int]] = GroupCommit(
            self._settle, len, reactor.seconds, heaviest=ROWS
        )

    @property
    def failing(self) -> bool:
        """Whether results wait that the database did not take: what cannot be settled must not be sent."""
        return self._failing

    async def claim(
        self,
        limit: int,
        *,
        share: int = 10,
        lease: float = LEASE,
        busy: Collection[str] = (),
        only: Collection[str] | None = None,
        along: int = 0,
    ) -> list[Job]:
        """Claim up to ``limit`` rows that are due, from the destinations whose turn it is.

        High priority goes first, and among equals the destination that has waited longest. The cost depends
        on what is claimed, not on how much waits.

        :param share: rows of one destination (and priority) at most.
        :param lease: seconds.
        :param busy: destinations to pass over, because they have all the connections they may have.
        :param only: look at no others, such as for the next message of an open connection.
        :param along: recipients of a transaction: those of a claimed message who are due at the same
            destination come along up to this number, beyond ``limit`` and ``share``; 0: none do.
        """
        token = uuid4()
        chosen = None if only is None else list(only)
        parameters = (token, self._owner, lease, limit, share, list(busy), chosen, along)
        return jobs(await self._database.query("queue.claim", _CLAIM, parameters), token)

    async def claim_expired(
        self, limit: int, *, life: float, null_sender_life: float, lease: float = LEASE
    ) -> list[Job]:
        """Claim up to ``limit`` rows whose life is over, to be given up.

        A row that is tried in time notices it by itself; this finds those that were not tried because their
        destination is blocked. Ask every few minutes.

        :param life: seconds from ``queued_at``; ``null_sender_life`` that of mail from the null sender.
        """
        token = uuid4()
        parameters = (token, self._owner, lease, limit, life, null_sender_life)
        return jobs(await self._database.query("queue.claim_expired", _CLAIM_EXPIRED, parameters), token)

    async def extend(self, held: Iterable[Job], lease: float = LEASE) -> set[int]:
        """Extend leases (the heartbeat); returns the ids of the rows that are still ours."""
        ids, tokens = _keys(held)
        rows = await self._database.query("queue.extend", _EXTEND, (ids, tokens, lease))
        return {row[0] for row in rows}

    async def begin_transfer(
        self, job: Job, ids: Sequence[int], *, host: str, address: str, tls: str | None
    ) -> set[int]:
        """Note that the final dot is about to be sent, and return the ids of the rows that may be sent.

        Those that another worker has by now, or that were held, cancelled or rerouted meanwhile, are not
        among them. If this process ends before :meth:`settle`, they read "in doubt". Call it before the final
        dot or BDAT LAST; where it raises, nothing may be sent. Many calls share a statement.

        :param ids: the recipients that the next host has accepted.
        """
        return await self._beginnings.add((job, ids, host, address, tls))

    async def settle(self, results: Sequence[Settlement]) -> set[int]:
        """Write down what became of rows; returns the ids of those that were still ours.

        Everything that follows is in the same statement: the attempt, the next due time, the report that is
        owed, the suppression of an address that does not exist. Many calls share a statement. A database that
        fails is asked again until :meth:`stop`: a result that is forgotten is a message sent twice.

        :raises DatabaseUnavailable: stopped before it could be written.
        """
        return await self._results.add(results) if results else set()

    async def give_back(self, unused: Iterable[Job]) -> set[int]:
        """Give back what was claimed and not tried: due now, no attempt counted. Returns the ids.

        Not for a message whose final dot may have been sent: settle that as in doubt, or let its lease end.
        """
        rows = await self._database.query("queue.give_back", _GIVE_BACK, _keys(unused))
        return {row[0] for row in rows}

    async def block(
        self, destination: str, reason: str, *, first: float = FIRST_BLOCK, longest: float = LONGEST_BLOCK
    ) -> float:
        """Leave a destination alone whose hosts cannot be reached; returns for how many seconds.

        It is ``first`` seconds, and twice as long each time in a row, up to ``longest``; then one row is
        claimed (:attr:`Job.probe`). Its rows are not touched. What fails while it is blocked does not count.
        """
        parameters = (destination, presentable(reason), first, longest)
        rows = await self._database.query("queue.block", _BLOCK, parameters)
        return float(rows[0][0])

    async def unblock(self, destination: str) -> bool:
        """A host of the destination answered: all of its rows may go. Returns whether it was blocked."""
        rows = await self._database.query("queue.unblock", _UNBLOCK, (destination,))
        return bool(rows[0][0])

    async def repair(self) -> None:
        """See to it that no queued row is without a lane: for what nobody foresaw, at start and hourly."""
        await self._database.query("queue.repair", _REPAIR)

    def stop(self) -> None:
        """Try no more to write results that the database does not take."""
        self._stopped = True

    async def _begin(self, transfers: Sequence[_Transfer]) -> Sequence[set[int] | Exception]:
        rows = [
            (
                id,
                job.token,
                job.destination,
                presentable(host),
                presentable(address),
                _text(tls),
            )
            for job, ids, host, address, tls in transfers
            for id in ids
        ]
        try:
            begun = await self._database.query("queue.begin", _BEGIN, _columns(rows, 6))
        except Exception as error:
            return [error] * len(transfers)
        ours = {row[0] for row in begun}
        return [ours.intersection(ids) for _, ids, *_ in transfers]

    async def _settle(self, calls: Sequence[Sequence[Settlement]]) -> Sequence[set[int] | Exception]:
        """Write the results of several calls. A batch with one that cannot be stored is split."""
        self._crash("before-settle")
        try:
            ours = await self._write([result for call in calls for result in call])
        except DatabaseUnavailable as error:
            return [error] * len(calls)
        except Exception as error:
            if len(calls) == 1:
                return [await self._settle_singly(calls[0], error)]
            middle = len(calls) // 2
            return [*await self._settle(calls[:middle]), *await self._settle(calls[middle:])]
        self._crash("after-settle")
        return [ours.intersection(result.id for result in call) for call in calls]

    async def _settle_singly(self, results: Sequence[Settlement], error: Exception) -> set[int] | Exception:
        """Write one result after the other, and that which does not fit without the other host's texts."""
        ours: set[int] = set()
        failure: Exception | None = None
        for result in results:
            try:
                ours |= await self._write([result])
            except Exception:
                log.error("The outcome of row {id} does not fit: {why}", id=result.id, why=str(error))
                try:
                    ours |= await self._write([bare(result)])
                except Exception as failed:
                    failure = failed
        return failure or ours

    async def _write(self, results: Sequence[Settlement]) -> set[int]:
        """Write results, however long the database needs to take them."""
        while True:
            try:
                rows = await self._database.query("queue.settle", _SETTLE, _columns(map(_row, results), 13))
            except DatabaseError as error:
                if error.blames_values or error.is_of("23"):
                    raise
                await self._wait(error)
            else:
                self._failing = False
                return {row[0] for row in rows}

    async def _wait(self, error: DatabaseError) -> None:
        if not self._failing:
            log.warn("Results of deliveries cannot be written and are kept: {why}", why=str(error))
        self._failing = True
        if self._stopped:
            raise DatabaseUnavailable("stopped before the results could be written")
        await deferLater(self._reactor, AGAIN)


def _keys(held: Iterable[Job]) -> tuple[list[int], list[UUID]]:
    pairs = [(recipient.id, job.token) for job in held for recipient in job.recipients]
    return [id for id, _ in pairs], [token for _, token in pairs]


def _row(result: Settlement) -> tuple[object, ...]:
    return (
        result.id,
        result.token,
        result.verdict,
        presentable(result.status),
        _text(result.reply),
        _text(result.host),
        _text(result.address),
        _text(result.tls),
        presentable(result.phase),
        result.delay,
        result.owes,
        result.in_doubt,
        result.seconds,
    )


def _text(text: str | None) -> str | None:
    return None if text is None else presentable(text)


def _columns(rows: Iterable[Sequence[object]], width: int) -> tuple[list[object], ...]:
    columns: tuple[list[object], ...] = tuple([] for _ in range(width))
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns
