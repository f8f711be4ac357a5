"""Messages held until a time (FUTURERELEASE, RFC 4865): stored, and shown to nobody yet."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from twisted.logger import Logger

from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.record import Record
from relaymail.store.database import Database, DatabaseError, Transaction
from relaymail.store.large import store_attachments
from relaymail.store.rows import Rows, without_columns

log = Logger()

# A recipient of ours who is reported to the sender (NOTIFY=SUCCESS) has a row in the queue, too, one that was
# never to be tried: it is no recipient elsewhere
_DUE: Final = """
    SELECT m.id, m.listener, m.session_id, m.client_address, m.client_name, m.login_user_id, m.reverse_path,
           m.sha256, m.trace_headers, m.message_id,
           ARRAY(SELECT address FROM relaymail.envelope_recipient r WHERE r.message_id = m.id ORDER BY n),
           ARRAY(SELECT user_id FROM relaymail.envelope_recipient r WHERE r.message_id = m.id ORDER BY n),
           ARRAY(SELECT CASE WHEN q.state = 'delivered' AND q.attempts = 0 THEN NULL ELSE q.destination END
                   FROM relaymail.envelope_recipient r
                   LEFT JOIN relaymail.queue q USING (message_id, n) WHERE r.message_id = m.id ORDER BY n)
    FROM relaymail.message m
    WHERE m.release_at <= now() AND m.released_at IS NULL AND m.id <> ALL (%s::uuid[])
    ORDER BY m.release_at LIMIT %s
"""
_RELEASE: Final = (
    "UPDATE relaymail.message SET released_at = now(), email_ids = %s::uuid[]"
    " WHERE id = %s AND released_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Held:
    """A message whose time has come."""

    id: UUID
    origin: Origin
    envelope: Envelope
    sha256: bytes
    trace_headers: bytes
    header_message_id: str


async def due(database: Database, limit: int, without: Collection[UUID] = ()) -> list[Held]:
    """The messages that are to be released now, the one that waits longest first.

    :param without: messages that are passed over.
    :raises DatabaseError: the database failed.
    """
    return [_held(row) for row in await database.query("held.due", _DUE, (list(without), limit))]


async def release(database: Database, record: Record, run: Callable[..., Any]) -> bool:
    """Show a message to those it is for. False: another host has done so.

    ``run`` runs a function in a thread: attachments are decoded there. What does not fit its columns is left
    out, as when a message is accepted.

    :raises DatabaseError: the database failed; nothing is shown then.
    """
    try:
        return await _release(database, record, run)
    except DatabaseError as error:
        if not error.blames_values:
            raise
        log.error(
            "Message {id} does not fit its columns ({state}); releasing it without them",
            id=record.id,
            state=error.sqlstate,
        )
        return await _release(database, without_columns(record, error.sqlstate), run)


async def _release(database: Database, record: Record, run: Callable[..., Any]) -> bool:
    rows = Rows(check_users=True)
    rows.add_release(record)

    async def body(transaction: Transaction) -> bool:
        if not await transaction.execute(_RELEASE, ([str(email.id) for email in record.emails], record.id)):
            return False
        await transaction.execute(*rows.statement())
        if record.summary.attachments and record.emails:
            await store_attachments(transaction, record, run)
        return True

    return await database.transaction("held.release", body)


def _held(row: tuple[Any, ...]) -> Held:
    id, listener, session, address, name, user, sender, sha256, trace, message_id, *envelope = row
    recipients = tuple(
        EnvelopeRecipient(address, user, destination=destination)
        for address, user, destination in zip(*envelope, strict=True)
    )
    return Held(
        id,
        Origin(listener, session, address, name, login_user_id=user),
        Envelope(sender, recipients),
        bytes(sha256),
        bytes(trace),
        message_id,
    )
