"""Making messages durable: everything of a message in one transaction, many messages in one COMMIT."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from twisted.internet.task import deferLater
from twisted.logger import Logger

from relaymail.message.record import Record
from relaymail.store.database import CommitUnknown, Database, DatabaseError, DatabaseUnavailable, Transaction
from relaymail.store.group_commit import GroupCommit
from relaymail.store.large import store_large
from relaymail.store.rows import Rows, without_columns

log = Logger()

BATCH_TIMEOUT: Final = 30.0
"""Seconds for one batch; well under the time a sender is kept waiting."""
UNKNOWN_TRIES: Final = 5
"""How often a message whose COMMIT was not answered is tried again, with the same id, before giving up."""
QUICK_ESCAPES: Final = 2000
"""Equals signs in a message: a padding or an escape takes up to a microsecond, all else next to nothing."""
REMEMBERED: Final = 10_000
"""Messages in doubt that are remembered until they come again."""

_UNIQUE_VIOLATION: Final = "23505"
_FOREIGN_KEY_VIOLATION: Final = "23503"


class MessageStore:
    """Accepts messages.

    :param run: runs a function in a thread and returns a Deferred.
    :param timeout: seconds for one batch.
    :param stored: called behind each commit with the number of messages in it.
    :param crash: called at ``before-insert``, ``before-commit`` and ``after-commit``; tests kill the process
    there.
    """

    def __init__(
        self,
        database: Database,
        *,
        reactor: Any,
        run: Callable[..., Any],
        timeout: float = BATCH_TIMEOUT,
        stored: Callable[[int], None] = lambda messages: None,
        crash: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._database = database
        self._reactor = reactor
        self._run = run
        self._timeout = timeout
        self._stored = stored
        self._crash = crash
        self._group: GroupCommit[Record, UUID] = GroupCommit(
            self._commit, lambda record: record.content.size, reactor.seconds
        )
        self._in_doubt: OrderedDict[UUID, UUID] = OrderedDict()

    @property
    def longest_wait(self) -> float:
        """Seconds that the first message has been waiting for a batch."""
        return self._group.longest_wait

    async def accept(self, record: Record) -> UUID:
        """Store a message and return its id: that of the first, where this one is a resend.

        Returning means committed. Raises :exc:`~relaymail.store.database.DatabaseError`; then the message is
        not stored, or in doubt and remembered, so that a resend does not make it two.
        """
        before = self._in_doubt.get(record.fingerprint)
        if before is not None:
            record = record.under(before)
        try:
            if record.content.memory() is None:
                stored = await self._alone(record)
            else:
                stored = await self._group.add(record)
        except BaseException as error:
            if not isinstance(error, DatabaseError):
                # Cancelled, perhaps in flight
                self._remember(record)
            raise
        self._in_doubt.pop(record.fingerprint, None)
        return stored

    async def _commit(self, records: Sequence[Record]) -> Sequence[UUID | Exception]:
        """Store a batch. One that fails is split until the bad message stands alone."""
        try:
            await self._insert(records)
        except CommitUnknown:
            return [await self._settle(record) for record in records]
        except DatabaseUnavailable as error:
            return [error] * len(records)
        except Exception as error:
            if len(records) == 1:
                return [await self._settle(records[0], error)]
            middle = len(records) // 2
            return [*await self._commit(records[:middle]), *await self._commit(records[middle:])]
        return [record.id for record in records]

    async def _settle(self, record: Record, error: Exception | None = None) -> UUID | Exception:
        try:
            return await self._alone(record, error)
        except Exception as failed:
            return failed

    async def _alone(self, record: Record, error: Exception | None = None) -> UUID:
        """Store one message, answering what went wrong before with what mends it.

        ``error`` is how the first try went; ``None`` for none, or one whose COMMIT was not answered: the same
        ids are then inserted again, and the unique index tells whether the first try came through, waiting
        for it where it is still under way.
        """
        check_users = False
        for tried in range(UNKNOWN_TRIES):
            if error is None:
                try:
                    await self._insert([record], check_users=check_users)
                    return record.id
                except Exception as failed:
                    error = failed
            match error:
                case CommitUnknown():
                    self._remember(record)
                    await deferLater(self._reactor, 0.2 * 2**tried)
                case DatabaseError(sqlstate="23505"):
                    earlier = await self._earlier(record)
                    if earlier is not None:
                        return earlier
                case DatabaseError(sqlstate="23503") if not check_users:
                    check_users = True
                case DatabaseError(sqlstate=state, blames_values=True) if tried == 0:
                    log.error(
                        "Message {id} does not fit its columns ({state}); storing it without them",
                        id=record.id,
                        state=state,
                    )
                    record = without_columns(record, state)
                case DatabaseError(sqlstate="40001" | "40P01"):
                    pass
                case _:
                    raise error
            error = None
        raise DatabaseUnavailable("the message could not be stored; its last COMMIT was not answered")

    async def _earlier(self, record: Record) -> UUID | None:
        """The id under which this message is already stored; one older than a day is no reason to refuse."""
        rows = await self._database.query(
            "messages.earlier",
            "SELECT id FROM relaymail.message WHERE id = %s OR"
            " (dedupe_key = %s AND received_at > now() - interval '24 hours')",
            (record.id, record.fingerprint),
        )
        if rows:
            earlier: UUID = rows[0][0]
            log.info("Message {id} is a resend of {earlier}", id=record.id, earlier=earlier)
            return earlier
        await self._database.execute(
            "messages.forget",
            "UPDATE relaymail.message SET dedupe_key = NULL WHERE dedupe_key = %s"
            " AND received_at <= now() - interval '24 hours'",
            (record.fingerprint,),
        )
        return None

    async def _insert(self, records: Sequence[Record], *, check_users: bool = False) -> None:
        """Insert records in one transaction."""
        self._crash("before-insert")
        if records[0].content.memory() is None:
            (record,) = records

            async def body(transaction: Transaction) -> None:
                await store_large(transaction, record, self._run, check_users=check_users)
        else:
            rows = Rows(check_users)
            for record in records:
                raw = record.content.memory()
                assert raw is not None
                rows.add(record, raw=raw, attachments=await self._attachments(record, raw))
            statement, parameters = rows.statement()

            async def body(transaction: Transaction) -> None:
                await transaction.execute(statement, parameters)

        await self._database.transaction(
            "messages.accept", body, timeout=self._timeout, before_commit=lambda: self._crash("before-commit")
        )
        self._crash("after-commit")
        self._stored(len(records))

    async def _attachments(self, record: Record, raw: bytes) -> list[bytes]:
        """The contents of the attachments; in a thread where the reactor would have to wait for them."""

        def decode() -> list[bytes]:
            return [b"".join(attachment.decode(raw)) for attachment in record.summary.attachments]

        if record.summary.attachments and raw.count(b"=") > QUICK_ESCAPES:
            decoded: list[bytes] = await self._run(decode)
            return decoded
        return decode()

    def _remember(self, record: Record) -> None:
        self._in_doubt[record.fingerprint] = record.id
        if len(self._in_doubt) > REMEMBERED:
            self._in_doubt.popitem(last=False)
