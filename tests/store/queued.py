"""Mail in the queue, and what to do with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from twisted.internet.defer import maybeDeferred

from relaymail.message.envelope import Envelope, EnvelopeRecipient
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from relaymail.store.queue import Job, Queue, Settlement
from tests.conftest import reactor
from tests.store.records import record

LONG = 600.0


async def put(
    database: Database,
    folder: Path,
    *addresses: str,
    sender: str = "anna@example.test",
    parameters: Mapping[str, str | None] | None = None,
    rcpt: Mapping[str, str | None] | None = None,
    release_at: datetime | None = None,
    received_at: datetime | None = None,
) -> UUID:
    """Accept a message for ``addresses``, each of which is sent on to its domain."""
    recipients = tuple(
        EnvelopeRecipient(address, None, rcpt or {}, address.rpartition("@")[2]) for address in addresses
    )
    made = await record(b"Subject: hello\r\n\r\nhello\r\n", folder)
    made = replace(
        made,
        envelope=Envelope(sender, recipients, parameters or {}),
        emails=(),
        release_at=release_at,
        received_at=received_at or datetime.now(UTC),
    )
    return await MessageStore(database, reactor=reactor, run=maybeDeferred).accept(made)


async def fill(database: Database, destination: str, count: int, *, priority: int = 0) -> None:
    """Queue ``count`` recipients of one message, in one statement."""
    await database.execute(
        "test.fill",
        """
        WITH message AS (
            INSERT INTO relaymail.message (id, received_at, listener, session_id, client_address,
                client_name, reverse_path, size_bytes, sha256, trace_headers, message_id, from_address,
                subject, parse_status, email_ids)
            VALUES (gen_random_uuid(), now(), 'submission', 'S', '192.0.2.1', 'c', 'anna@example.test', 1,
                '', '', 'm@example.test', 'anna@example.test', 's', 'complete', '{}')
            RETURNING id
        ), rows AS (
            INSERT INTO relaymail.queue (message_id, n, recipient, destination, priority)
            SELECT id, n, 'u' || n || '@' || %s, %s, %s FROM message, generate_series(1, %s) AS n
        )
        INSERT INTO relaymail.arrival (destination, priority, due_at) VALUES (%s, %s, now())
        """,
        (destination, destination, priority, count, destination, priority),
    )


def queue_of(database: Database, owner: str = "host-1", **more: Any) -> Queue:
    return Queue(database, reactor=reactor, owner=owner, **more)


def addresses(jobs: Sequence[Job]) -> list[str]:
    return sorted(recipient.address for job in jobs for recipient in job.recipients)


def ids(*jobs: Job) -> list[int]:
    return [recipient.id for job in jobs for recipient in job.recipients]


def delivered(job: Job, **more: Any) -> list[Settlement]:
    return _settlements(job, "delivered", "2.0.0", "250 2.0.0 Ok: queued as 4711", more)


def deferred(job: Job, delay: float = LONG, **more: Any) -> list[Settlement]:
    return _settlements(job, "deferred", "4.3.0", "451 4.3.0 Later", {"delay": delay, **more})


def failed(job: Job, status: str = "5.1.1", **more: Any) -> list[Settlement]:
    return _settlements(job, "failed", status, f"550 {status} No such user", more)


def _settlements(
    job: Job, verdict: Any, status: str, reply: str, more: Mapping[str, Any]
) -> list[Settlement]:
    facts: dict[str, Any] = {
        "phase": "final-dot",
        "host": "mx.example.org",
        "address": "192.0.2.25:25",
        "tls": "TLSv1.3",
        **more,
    }
    return [Settlement(r.id, job.token, verdict, status, reply, **facts) for r in job.recipients]


async def states(database: Database) -> dict[str, str]:
    rows = await database.query("test.states", "SELECT recipient, state FROM relaymail.queue")
    return dict(rows)


async def one(database: Database, sql: str, *parameters: object) -> Any:
    """The only row, or the only value of it."""
    ((*row,),) = await database.query("test.one", sql, parameters)
    return row[0] if len(row) == 1 else tuple(row)


async def expire(database: Database) -> None:
    """Let the time of all leases be over."""
    await database.execute(
        "test.expire",
        "UPDATE relaymail.queue SET due_at = now() WHERE lease_token IS NOT NULL;"
        " SELECT relaymail.queue_repair()",
    )


async def all_ids(database: Database) -> list[int]:
    return [row[0] for row in await database.query("test.ids", "SELECT id FROM relaymail.queue ORDER BY id")]
