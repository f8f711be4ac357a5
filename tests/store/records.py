"""Records to store, made of real messages."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from msgspec.structs import replace
from twisted.internet.defer import maybeDeferred

from relaymail.hosting.mailboxes import emails_for
from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.ids import uuid7
from relaymail.message.record import Record
from relaymail.message.summary import summarize
from relaymail.smtp.content import Content

ORIGIN = Origin("mx", "SESSION", "192.0.2.1", "client.example.org")


async def record(
    raw: bytes,
    folder: Path,
    *,
    users: dict[str, UUID | None] | None = None,
    deduplicate: bool = False,
    memory: int = 256 * 1024,
) -> Record:
    """A record of ``raw``; it is spooled to ``folder`` if it is longer than ``memory``."""
    content = Content(folder, maybeDeferred, memory)
    content.write(raw)
    digest = await content.finish()
    summary = summarize(raw)
    reached = users if users is not None else {"nobody@example.test": None}
    envelope = Envelope("s@example.org", tuple(EnvelopeRecipient(a, u) for a, u in reached.items()))
    return Record(
        id=uuid7(),
        received_at=datetime.now(UTC),
        origin=ORIGIN,
        envelope=envelope,
        sha256=digest,
        fingerprint=UUID(bytes=hashlib.sha256(digest + repr(sorted(reached)).encode()).digest()[:16]),
        deduplicate=deduplicate,
        trace_headers=b"Received: from x\r\n",
        header_message_id=summary.message_id or f"{uuid4()}@example.test",
        summary=summary,
        emails=emails_for(envelope, summary, None, {}),
        content=content,
    )


def again(first: Record) -> Record:
    """The same message sent once more: new ids, same fingerprint."""
    emails = tuple(replace(email, id=uuid4()) for email in first.emails)
    return replace(first, id=uuid7(), emails=emails)
