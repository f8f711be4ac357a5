"""Storing a message that is too large to be held in memory: part by part, in one transaction all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any
from uuid import uuid4

from relaymail.message.record import Record
from relaymail.store.database import Transaction
from relaymail.store.octets import octets
from relaymail.store.rows import PART_OCTETS, Rows


async def store_large(
    transaction: Transaction, record: Record, run: Callable[..., Any], *, check_users: bool
) -> None:
    """Insert all rows of ``record``; at no time is more than a part of it in memory.

    Attachments are assembled in the server from their parts. ``run`` runs a function in a thread: the file is
    read and attachments are decoded there.
    """
    rows = Rows(check_users)
    rows.add(record, raw=None, attachments=None)
    await transaction.execute(*rows.statement())
    parts = record.content.parts(PART_OCTETS)
    for n in count():
        part = await run(next, parts, None)
        if part is None:
            break
        await transaction.execute(
            "INSERT INTO relaymail.message_part (message_id, n, content) VALUES (%s, %s, %s)",
            (record.id, n, octets(part)),
        )
    if record.summary.attachments and record.emails:
        await store_attachments(transaction, record, run)


async def store_attachments(transaction: Transaction, record: Record, run: Callable[..., Any]) -> None:
    """Insert the attachments of every row of ``Emails`` of ``record``, decoded in a thread."""
    await transaction.execute(
        "CREATE TEMPORARY TABLE IF NOT EXISTS relaymail_part (n integer NOT NULL, content bytea NOT NULL)"
        " ON COMMIT DELETE ROWS"
    )
    raw = await run(record.content.map)
    for attachment in record.summary.attachments:
        chunks = _regroup(attachment.decode(raw))
        for n in count():
            chunk = await run(next, chunks, None)
            if chunk is None:
                break
            await transaction.execute(
                "INSERT INTO relaymail_part (n, content) VALUES (%s, %s)", (n, octets(chunk))
            )
        first, *others = record.emails
        first_id = uuid4()
        await transaction.execute(
            'INSERT INTO public."EmailAttachments"'
            ' ("Id", "EmailId", "FileName", "ContentType", "SizeBytes", "Content")'
            " SELECT %s, %s, %s, %s, %s, COALESCE(string_agg(content, ''::bytea ORDER BY n), ''::bytea)"
            " FROM relaymail_part",
            (first_id, first.id, attachment.file_name, attachment.content_type, attachment.size),
        )
        if others:
            await transaction.execute(
                'INSERT INTO public."EmailAttachments"'
                ' ("Id", "EmailId", "FileName", "ContentType", "SizeBytes", "Content")'
                ' SELECT o.id, o.email_id, a."FileName", a."ContentType", a."SizeBytes", a."Content"'
                ' FROM unnest(%s::uuid[], %s::uuid[]) AS o (id, email_id), public."EmailAttachments" a'
                ' WHERE a."Id" = %s',
                ([uuid4() for _ in others], [email.id for email in others], first_id),
            )
        await transaction.execute("TRUNCATE relaymail_part")


def _regroup(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks of at least a part's size, but for the last."""
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size >= PART_OCTETS:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
