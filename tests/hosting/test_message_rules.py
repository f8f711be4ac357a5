"""What is refused behind the dot, to the last octet and hop, and what a submitted message is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from relaymail.hosting.session import Hosting, HostingSession, MXSession, SubmissionSession
from relaymail.message.summary import summarize
from relaymail.smtp import reply
from relaymail.store.archive import Archive
from relaymail.store.database import Database
from tests.hosting.conftest import add_user, send, session
from tests.message.build import lines

KIB = 1024
HEADER_LIMIT = 256 * KIB
USER = "user@example.test"


@pytest.fixture
def hosting(hosting: Hosting) -> Hosting:
    """With the limits that are the default."""
    return replace(hosting, header_limit=HEADER_LIMIT, hop_limit=100)


listeners = pytest.mark.parametrize("kind", [MXSession, SubmissionSession])
in_memory_and_spooled = pytest.mark.parametrize("memory", [1 << 24, 0])
bodies = pytest.mark.parametrize("body", [b"Hello\r\n", b"Hello\r\n" * 30_000], ids=["short", "long"])


@listeners
@in_memory_and_spooled
@bodies
async def test_a_hundred_hops_are_taken_and_not_one_more(
    hosting: Hosting, tmp_path: Path, kind: type[HostingSession], memory: int, body: bytes
) -> None:
    def received(count: int) -> bytes:
        hops = [b"Received: from a.example\r\n\tby b.example; Fri, 2 Jan 2026 03:04:05 +0000\r\n"] * (
            count - 1
        )
        return b"".join(hops) + b"RECEIVED \t: x\r\nSubject: x\r\nX-Received: y\r\n\r\nReceived: z\r\n" + body

    assert isinstance(await send(session(hosting, kind), received(100), tmp_path, memory=memory), UUID)
    assert await send(session(hosting, kind), received(101), tmp_path, memory=memory) is reply.TOO_MANY_HOPS
    assert reply.TOO_MANY_HOPS.data.startswith(b"554 5.4.6 ")


def one_field(size: int) -> bytes:
    return b"X: " + b"y" * (size - 3) + b"\r\n\r\n"


def many_fields(size: int) -> bytes:
    count, rest = divmod(size + 2, 64)
    return (b"X: " + b"y" * 59 + b"\r\n") * (count - 1) + b"X: " + b"y" * (59 + rest) + b"\r\n\r\n"


def many_folds(size: int) -> bytes:
    count, rest = divmod(size + 2 - 4, 64)
    return b"X:\r\n" + (b"\t" + b"y" * 61 + b"\r\n") * (count - 1) + b" " + b"y" * (61 + rest) + b"\r\n\r\n"


@pytest.mark.parametrize("header", [one_field, many_fields, many_folds])
@listeners
@in_memory_and_spooled
@bodies
async def test_a_header_section_may_be_as_long_as_the_limit_and_no_longer(
    hosting: Hosting,
    tmp_path: Path,
    header: Callable[[int], bytes],
    kind: type[HostingSession],
    memory: int,
    body: bytes,
) -> None:
    assert header(HEADER_LIMIT).index(b"\r\n\r\n") == HEADER_LIMIT
    raw = header(HEADER_LIMIT) + body
    assert isinstance(await send(session(hosting, kind), raw, tmp_path, memory=memory), UUID)
    raw = header(HEADER_LIMIT + 1) + body
    assert await send(session(hosting, kind), raw, tmp_path, memory=memory) is reply.HEADER_TOO_BIG
    assert reply.HEADER_TOO_BIG.data.startswith(b"552 5.3.4 ")


async def test_a_body_without_a_header_section_is_not_measured(hosting: Hosting, tmp_path: Path) -> None:
    raw = b"no field\r\n" * 60_000
    assert isinstance(await send(session(hosting), raw, tmp_path), UUID)


@in_memory_and_spooled
async def test_what_is_added_is_what_is_stored_and_no_bcc_reaches_a_column(
    hosting: Hosting, database: Database, tmp_path: Path, memory: int
) -> None:
    user, reader = await add_user(database, USER), await add_user(database, "reader@example.test")
    raw = lines(
        f"From: {USER}",
        "bCC \t: secret@example.test,",
        "\tother@example.test",
        "To: Reader <reader@example.test>",
        "Resent-Bcc: secret@example.test",
        "Subject: Hidden",
        "",
        "Hello",
        end=b"\n",
    )
    mine = session(hosting, SubmissionSession, user)
    message = await send(mine, raw, tmp_path, sender=USER, recipient="reader@example.test", memory=memory)
    assert isinstance(message, UUID)

    archive = Archive(database)
    assert b"".join([part async for part in archive.export(message)]) == raw
    whole = b"".join([part async for part in archive.export_delivered(message)])
    shown = await archive.show(message)
    trace, _, rest = whole.partition(b"Message-ID: ")
    assert trace.startswith(
        b"Received: from client.example.org ([192.0.2.1])\r\n\tby mx.example.test with ESMTPA"
    )
    date = trace.rpartition(b"\t")[2]  # of the Received field
    assert rest == lines(
        f"<{shown.message_id}>",
        "Date: " + date.decode().strip(),
        f"From: {USER}",
        "To: Reader <reader@example.test>",
        "Subject: Hidden",
        "",
        "Hello",
    )
    assert summarize(whole).message_id == shown.message_id

    rows = await database.query(
        "test.rows",
        'SELECT e."MessageId", e::text, r."Address", r."Type", r."UserId" FROM public."Emails" e'
        ' JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"',
    )
    ((email_id, columns, address, kind, owner),) = rows
    assert (email_id, address, kind, owner) == (shown.message_id, "reader@example.test", "To", reader)
    (stored,) = await database.query(
        "test.ours", "SELECT m::text FROM relaymail.message m WHERE id = %s", (message,)
    )
    payloads = await database.query("test.payload", "SELECT payload::text FROM relaymail.outbox")
    for text in (columns, *stored, *(payload for (payload,) in payloads)):
        assert "secret" not in text
        assert "other@" not in text


async def test_mail_of_the_mx_is_delivered_with_return_path_and_received_and_as_it_came(
    hosting: Hosting, database: Database, tmp_path: Path
) -> None:
    raw = lines("Bcc: hidden@example.test", "Subject: x", "", "Hello")
    message = await send(session(hosting), raw, tmp_path, sender="friend@example.org")
    assert isinstance(message, UUID)
    whole = b"".join([part async for part in Archive(database).export_delivered(message)])
    trace = whole.removesuffix(raw)
    assert trace + raw == whole
    assert trace.startswith(b"Return-Path: <friend@example.org>\r\nReceived: from client.example.org")
    assert trace.count(b"\r\n") == trace.count(b"\n")
    assert b"\r\n\r\n" not in trace
