"""What a delivery needs beside the queue: messages in their delivered form, what an operator has set for some
destinations, and PostgreSQL's time."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from relaymail.message.delivered import Fixes, delivered
from relaymail.store.archive import ArchiveError
from relaymail.store.database import Database

MOST_SETTINGS: Final = 10_000
"""Destinations with settings of their own that are read."""

# The first part is all of a small message
_SMALL: Final = """
    SELECT m.id, m.trace_headers, m.listener <> 'mx', m.message_id, m.received_at, m.added_sender,
           COALESCE(upper(m.mail_parameters ->> 'BODY') = 'BINARYMIME', false), m.sha256, p.content
      FROM relaymail.message AS m
      JOIN relaymail.message_part AS p ON p.message_id = m.id AND p.n = 0
     WHERE m.id = ANY (%s::uuid[])
"""
_SETTINGS: Final = f"""
    SELECT destination, max_connections, relay_host, relay_port, tls_level FROM relaymail.destination
     ORDER BY destination LIMIT {MOST_SETTINGS}
"""


@dataclass(frozen=True, slots=True)
class SmallMessage:
    """A message that was read at once."""

    id: UUID
    trace: bytes
    fixes: Fixes | None
    sha256: bytes
    raw: bytes

    def delivered(self) -> bytes:
        """As the next host gets it.

        :raises ArchiveError: it is not stored as it was received.
        """
        if hashlib.sha256(self.raw).digest() != self.sha256:
            raise ArchiveError(f"Message {self.id} is not stored as it was received: its SHA-256 differs.")
        return b"".join(delivered((self.raw,), self.trace, self.fixes))


@dataclass(frozen=True, slots=True)
class DestinationSettings:
    """What an operator has set for a destination; ``None``: as everywhere."""

    max_connections: int | None
    relay_host: str | None
    relay_port: int | None
    tls_level: str | None


async def small_messages(database: Database, ids: Collection[UUID]) -> dict[UUID, SmallMessage]:
    """Messages that are known to be no longer than one part, in one statement; deleted ones are left out.

    :raises DatabaseError: the database failed.
    """
    rows = await database.query("outgoing.small", _SMALL, (list(ids),)) if ids else []
    return {row[0]: _small(*row) for row in rows}


async def settings(database: Database) -> dict[str, DestinationSettings]:
    """What is set for destinations, by destination.

    :raises DatabaseError: the database failed.
    """
    rows = await database.query("outgoing.settings", _SETTINGS)
    return {row[0]: DestinationSettings(*row[1:]) for row in rows}


async def now(database: Database) -> float:
    """PostgreSQL's time as a Unix time: ages are counted by it, since every host's own clock may be wrong.

    :raises DatabaseError: the database failed.
    """
    rows = await database.query("outgoing.now", "SELECT extract(epoch FROM clock_timestamp())::float8")
    return float(rows[0][0])


def _small(
    id: UUID,
    trace: Any,
    submitted: bool,
    header_id: str,
    received_at: Any,
    sender: str,
    binary: bool,
    sha256: Any,
    raw: Any,
) -> SmallMessage:
    fixes = Fixes(header_id, received_at, sender, binary) if submitted else None
    return SmallMessage(id, bytes(trace), fixes, bytes(sha256), bytes(raw))
