"""What is sent is signed with the keys of its author's domain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dkim  # type: ignore[import-untyped]
import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread

from relaymail.delivery.signing import PIECE, Signer
from relaymail.message.dkim_keys import new_key, public_text, read_key, record_text
from relaymail.store import dkim as store
from relaymail.store.archive import Archive
from relaymail.store.database import Database
from relaymail.store.dkim import DkimKeys, KeysUnusable, NewKey
from relaymail.store.messages import MessageStore
from tests.conftest import reactor
from tests.store.records import record

HEADER = b"From: anna@example.test\r\nTo: b@example.org\r\nSubject: x\r\n\r\n"


async def add_keys(database: Database, domain: str = "example.test") -> Callable[..., bytes]:
    """Keys of both algorithms, and the DNS that tells their public halves."""
    records = {}
    for algorithm in ("rsa", "ed25519"):
        pem = new_key(algorithm)
        key = read_key(pem, domain, algorithm)
        await store.add(database, [NewKey(key, pem.decode(), active=True)])
        records[f"{algorithm}._domainkey.{domain}.".encode()] = record_text(
            algorithm, public_text(key)
        ).encode()

    def published(name: bytes, timeout: int = 5) -> bytes:
        return records[name]

    return published


def signer(database: Database, run: Any = maybeDeferred) -> Signer:
    return Signer(DkimKeys(database, clock=Clock(), run=run), run=run, now=lambda: datetime.now(UTC))


async def test_a_stored_message_is_signed_as_it_is_sent(database: Database, tmp_path: Path) -> None:
    """Mended line ends, no Bcc, trace headers: what is signed is the delivered form."""
    published = await add_keys(database)
    raw = b"Bcc: secret@example.org\n" + HEADER.replace(b"\r\n", b"\n") + b"line  \n\n" * 100_000
    made = await record(raw, tmp_path, memory=1000)
    await MessageStore(database, reactor=reactor, run=maybeDeferred).accept(made)
    await database.execute("test.origin", "UPDATE relaymail.message SET listener = 'submission'")
    archive = Archive(database)
    fields = await signer(database, deferToThread).fields(archive.export_delivered(made.id))
    sent = fields + b"".join([part async for part in archive.export_delivered(made.id)])
    assert fields.count(b"DKIM-Signature:") == 2
    for number in range(2):
        assert dkim.DKIM(sent).verify(idx=number, dnsfunc=published)


async def test_small_and_large_parts_are_signed_alike(database: Database) -> None:
    published = await add_keys(database)
    for parts in (
        [HEADER + b"body\r\n"],
        [HEADER, b"body \t\r\n" * PIECE],
        [HEADER + b"\r\n" * 3 * PIECE, b"x\r\n"],
    ):
        fields = await signer(database, deferToThread).fields(parts)
        assert dkim.DKIM(fields + b"".join(parts)).verify(dnsfunc=published)


@pytest.mark.parametrize(
    "header", [b"From: eve@other.test\r\n\r\n", b"Subject: x\r\n\r\n", b"From: x\r\n\r\n"]
)
async def test_what_no_key_is_for_is_not_read_further(database: Database, header: bytes) -> None:
    await add_keys(database)
    given = []

    async def form() -> AsyncIterator[bytes]:
        for part in (header, b"body", b"more"):
            given.append(part)
            yield part

    assert await signer(database).fields(form()) == b""
    assert given == [header]


async def test_a_key_that_cannot_be_read_defers_rather_than_sends_unsigned(
    database: Database, tmp_path: Path
) -> None:
    key = read_key(new_key("ed25519"), "example.test", "s")
    await store.add(database, [NewKey(key, "", str(tmp_path / "gone.pem"), active=True)])
    with pytest.raises(KeysUnusable):
        await signer(database).fields([HEADER, b"body"])


async def test_what_cannot_be_signed_is_sent_unsigned(database: Database) -> None:
    await add_keys(database)
    assert await signer(database).fields([b"To: x\r\n" * 1000 + HEADER]) == b""
