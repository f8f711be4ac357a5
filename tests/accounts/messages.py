"""Writes messages into schema ``relaymail`` as the host stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from relaymail.store.database import Database

TRACE = b"Received: from client.test\r\n"


async def store_message(
    database: Database,
    parts: Sequence[bytes],
    *,
    message_id: UUID,
    subject: str = "Hello",
    recipients: Sequence[str] = (),
    email_ids: Sequence[UUID] = (),
    shuffled: bool = False,
    listener: str = "mx",
    added_sender: str | None = None,
    mail_parameters: str | None = None,
) -> None:
    """One message made of ``parts``; ``shuffled`` writes them in another order than theirs.

    It was received at noon of 2 January 2026 and has the trace header :data:`TRACE`.
    """
    content = b"".join(parts)
    await database.execute(
        "test.message",
        "INSERT INTO relaymail.message (id, received_at, listener, session_id, client_address, client_name, "
        "reverse_path, size_bytes, sha256, trace_headers, message_id, from_address, subject, parse_status, "
        "email_ids, added_sender, mail_parameters) VALUES (%s, '2026-01-02 12:00:00.9+00', %s, 's1', "
        "'192.0.2.1', 'client.test', 'from@sender.test', %s, %s, %s, 'm1@sender.test', 'from@sender.test', "
        "%s, 'complete', %s::uuid[], %s, %s)",
        (
            message_id,
            listener,
            len(content),
            hashlib.sha256(content).digest(),
            TRACE,
            subject,
            list(email_ids),
            added_sender,
            mail_parameters,
        ),
    )
    numbered = list(enumerate(parts))
    for n, part in reversed(numbered) if shuffled else numbered:
        await database.execute(
            "test.part", "INSERT INTO relaymail.message_part VALUES (%s, %s, %s)", (message_id, n, part)
        )
    for n, address in enumerate(recipients):
        await database.execute(
            "test.recipient",
            "INSERT INTO relaymail.envelope_recipient (message_id, n, address) VALUES (%s, %s, %s)",
            (message_id, n, address),
        )
