"""Reading stored messages."""

from __future__ import annotations

import hashlib
from uuid import UUID, uuid4

import pytest

from relaymail.store.archive import Archive, ArchiveError
from relaymail.store.database import Database
from tests.accounts.messages import TRACE, store_message

FIRST = UUID("01890000-0000-7000-8000-000000000001")
SECOND = UUID("01890000-0001-7000-8000-000000000002")


async def exported(archive: Archive, message_id: UUID) -> list[bytes]:
    return [part async for part in archive.export(message_id)]


async def test_messages_are_listed_newest_first_page_by_page(database: Database) -> None:
    for n, message_id in enumerate((SECOND, FIRST)):
        await store_message(database, [b"x" * n], message_id=message_id, recipients=["a@b.test", "c@d.test"])
    archive = Archive(database)
    assert [m.id for m in await archive.newest(limit=5)] == [SECOND, FIRST]
    assert [m.id for m in await archive.newest(limit=1)] == [SECOND]
    page = await archive.newest(limit=5, before=SECOND)
    assert [m.id for m in page] == [FIRST]
    assert page[0].recipients == ["a@b.test", "c@d.test"]


async def test_an_id_may_be_shortened_while_it_is_unique(database: Database) -> None:
    for message_id in (FIRST, SECOND):
        await store_message(database, [b""], message_id=message_id)
    archive = Archive(database)
    assert await archive.resolve(str(FIRST)) == FIRST
    assert await archive.resolve("01890000-0001") == SECOND
    assert await archive.resolve("018900000000") == FIRST
    with pytest.raises(ArchiveError, match="Several"):
        await archive.resolve("01890000")
    with pytest.raises(ArchiveError, match="no message"):
        await archive.resolve("ffffffff")
    for wrong in ("0189", "not-an-id", "0" * 33, "0189000g", ""):
        with pytest.raises(ArchiveError, match="is no message id"):
            await archive.resolve(wrong)


async def test_parts_come_in_their_order_and_make_the_message(database: Database) -> None:
    parts = [bytes(range(256)) * 4, b"\0", b"", b"last\r\n.\r\n"]
    await store_message(database, parts, message_id=FIRST, shuffled=True)
    assert await exported(Archive(database), FIRST) == parts


async def test_an_unknown_message_and_one_with_lost_bytes_are_errors(database: Database) -> None:
    archive = Archive(database)
    with pytest.raises(ArchiveError, match="no message"):
        await exported(archive, uuid4())
    await store_message(database, [b"one", b"two"], message_id=FIRST)
    await database.execute("test.lose", "DELETE FROM relaymail.message_part WHERE n = 1")
    with pytest.raises(ArchiveError, match="SHA-256"):
        await exported(archive, FIRST)


async def delivered(database: Database) -> bytes:
    return b"".join([part async for part in Archive(database).export_delivered(FIRST)])


async def test_mail_of_other_hosts_is_delivered_with_its_trace_and_as_it_came(database: Database) -> None:
    parts = [b"Bcc: x@y.test\n", b"\r\0", b"last"]
    await store_message(database, parts, message_id=FIRST, added_sender="ann@example.test")
    assert await delivered(database) == TRACE + b"".join(parts)


@pytest.mark.parametrize("listener", ["submission", "submissions"])
async def test_submitted_mail_is_delivered_with_what_was_stored_for_it(
    database: Database, listener: str
) -> None:
    await store_message(
        database,
        [b"From: boss@example.test\nB", b"cc: x@y.test\n\nHello\n"],
        message_id=FIRST,
        listener=listener,
        added_sender="ann@example.test",
    )
    assert await delivered(database) == TRACE + (
        b"Message-ID: <m1@sender.test>\r\nDate: Fri, 02 Jan 2026 12:00:00 +0000\r\n"
        b"Sender: ann@example.test\r\nFrom: boss@example.test\r\n\r\nHello\r\n"
    )


async def test_the_body_of_a_binary_message_is_delivered_as_it_came(database: Database) -> None:
    raw = b"Message-ID: <m1@sender.test>\nDate: x\n\n\n\r\0"
    await store_message(
        database, [raw], message_id=FIRST, listener="submission", mail_parameters='{"BODY": "BinaryMIME"}'
    )
    assert await delivered(database) == TRACE + b"Message-ID: <m1@sender.test>\r\nDate: x\r\n\r\n\n\r\0"


async def test_a_message_that_is_gone_or_damaged_is_not_delivered(database: Database) -> None:
    with pytest.raises(ArchiveError, match="no message"):
        await delivered(database)
    await store_message(database, [b"one", b"two"], message_id=FIRST)
    await database.execute("test.lose", "DELETE FROM relaymail.message_part WHERE n = 1")
    with pytest.raises(ArchiveError, match="SHA-256"):
        await delivered(database)


async def test_everything_known_of_a_message_is_shown(database: Database) -> None:
    email = uuid4()
    await store_message(
        database, [b"hello"], message_id=FIRST, recipients=["a@b.test"], email_ids=[email, uuid4()]
    )
    await database.execute(
        "test.event",
        "INSERT INTO relaymail.event (message_id, kind, detail) VALUES (%s, 'accepted', '{\"n\": 1}')",
        (FIRST,),
    )
    await database.execute(
        "test.outbox",
        "INSERT INTO relaymail.outbox (message_id, email_id, payload) VALUES (%s, %s, '{}')",
        (FIRST, email),
    )
    await database.execute(
        "test.email",
        'INSERT INTO public."Emails" ("Id", "MessageId", "FromAddress", "Subject", "ReceivedAt", "SizeBytes")'
        " VALUES (%s, 'm@x', 'f@x', 's', now(), 5)",
        (email,),
    )
    shown = await Archive(database).show(FIRST)
    assert shown.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert [recipient.address for recipient in shown.recipients] == ["a@b.test"]
    assert [(event.kind, event.detail) for event in shown.events] == [("accepted", {"n": 1})]
    assert [(row.email_id, row.state) for row in shown.outbox] == [(email, "pending")]
    assert [(row.email_id, row.address) for row in shown.emails] == [(email, None)]
    with pytest.raises(ArchiveError, match="no message"):
        await Archive(database).show(SECOND)
