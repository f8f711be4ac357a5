"""Held messages (FUTURERELEASE, RFC 4865): kept at once, shown when their time has come, and once."""

from __future__ import annotations

import mmap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock

from relaymail.hosting import release
from relaymail.hosting.release import Releaser
from relaymail.message.record import Record
from relaymail.message.summary import Summary, summarize
from relaymail.smtp.content import Content
from relaymail.store import held
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from relaymail.store.held import Held
from relaymail.store.messages import MessageStore
from tests.conftest import reactor
from tests.store.records import record
from tests.support.waiting import until

RAW = (
    b"From: s@example.org\r\nTo: u@example.test, other@example.test\r\nSubject: later\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b\r\n"
    b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename=a.bin\r\n\r\n"
    b"octets\r\n--b--\r\n"
)
PUBLIC = ('public."Emails"', 'public."EmailRecipients"', 'public."EmailAttachments"', "relaymail.outbox")


class Situation:
    """A user, a store, a releaser."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.user = uuid4()
        self.released = 0
        self.store = MessageStore(database, reactor=reactor, run=maybeDeferred)

    def releaser(self, clock: Any = reactor) -> Releaser:
        return Releaser(
            self.database,
            Accounts(self.database, clock=reactor),
            reactor=clock,
            new_content=lambda: Content(self.folder, maybeDeferred),
            run=maybeDeferred,
            now=lambda: datetime.now(UTC),
            released=self.hear,
        )

    def hear(self) -> None:
        self.released += 1

    async def add_users(self) -> None:
        for user, email in ((self.user, "u@example.test"), (uuid4(), "other@example.test")):
            await self.database.execute(
                "test.user",
                'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
                " VALUES (%s, %s, 'test', %s, now())",
                (user, str(user), email),
            )

    async def hold(
        self, seconds: float, raw: bytes = RAW, *, parameters: dict[str, str | None] | None = None
    ) -> Record:
        message = await record(raw, self.folder, users={"u@example.test": self.user})
        later = replace(message, emails=(), release_at=datetime.now(UTC) + timedelta(seconds=seconds))
        if parameters is not None:
            (recipient,) = later.envelope.recipients
            recipients = (replace(recipient, parameters=parameters),)
            origin = replace(later.origin, listener="submission", login_user_id=self.user)
            later = replace(later, envelope=replace(later.envelope, recipients=recipients), origin=origin)
        await self.store.accept(later)
        return later

    async def counts(self) -> list[int]:
        return [
            (await self.database.query("test.count", f"SELECT count(*) FROM {table}"))[0][0]
            for table in PUBLIC
        ]


async def test_a_held_message_is_stored_and_shown_to_nobody(database: Database, tmp_path: Path) -> None:
    s = Situation(database, tmp_path)
    await s.add_users()
    await s.hold(3600)
    assert await s.releaser().release_due() == 0
    assert await s.counts() == [0, 0, 0, 0]
    assert await database.query("test.parts", "SELECT count(*) FROM relaymail.message_part") == [(1,)]


async def test_when_its_time_has_come_it_is_shown_to_its_recipients_and_nobody_else(
    database: Database, tmp_path: Path
) -> None:
    s = Situation(database, tmp_path)
    await s.add_users()
    message = await s.hold(-1)
    assert await s.releaser().release_due() == 1
    assert s.released == 1
    assert await s.counts() == [1, 1, 1, 1]
    ((email, owner, subject, content),) = await database.query(
        "test.email",
        'SELECT e."Id", r."UserId", e."Subject", a."Content" FROM public."Emails" e'
        ' JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"'
        ' JOIN public."EmailAttachments" a ON a."EmailId" = e."Id"',
    )
    assert (owner, subject, bytes(content)) == (s.user, "later", b"octets")
    ((ids,),) = await database.query(
        "test.ids", "SELECT email_ids FROM relaymail.message WHERE id = %s", (message.id,)
    )
    assert [UUID(str(i)) for i in ids] == [email]
    events = await database.query("test.events", "SELECT kind FROM relaymail.event ORDER BY id")
    assert events == [("accepted",), ("released",)]


async def test_two_hosts_release_each_message_once(database: Database, tmp_path: Path) -> None:
    s = Situation(database, tmp_path)
    await s.add_users()
    for _ in range(5):
        await s.hold(-1)
    hosts = [Deferred.fromCoroutine(s.releaser().release_due()) for _ in range(2)]
    assert sum(await gatherResults(hosts)) == 5
    assert (await s.counts())[0] == 5


async def test_a_user_deleted_meanwhile_is_no_obstacle(database: Database, tmp_path: Path) -> None:
    s = Situation(database, tmp_path)
    await s.add_users()
    await s.hold(-1)
    await database.execute("test.delete", 'DELETE FROM public."Users" WHERE "Id" = %s', (s.user,))
    assert await s.releaser().release_due() == 1
    rows = await database.query("test.owner", 'SELECT "UserId" FROM public."EmailRecipients"')
    assert rows == [(None,)]


async def test_a_blind_recipient_whose_sender_wants_to_hear_of_it_gets_it_when_its_time_has_come(
    database: Database, tmp_path: Path
) -> None:
    """The report owed is a row of the queue, which must not make the recipient one of another host."""
    s = Situation(database, tmp_path)
    await s.add_users()
    await s.hold(-1, b"From: s@example.org\r\nSubject: x\r\n\r\nhello\r\n", parameters={"NOTIFY": "SUCCESS"})
    assert await s.releaser().release_due() == 1
    rows = await database.query("test.mine", 'SELECT "Type", "UserId" FROM public."EmailRecipients"')
    assert ("Bcc", s.user) in rows
    assert await database.query("test.told", "SELECT count(*) FROM relaymail.outbox") == [(1,)]


async def test_messages_that_cannot_be_released_hold_up_no_other(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Situation(database, tmp_path)
    monkeypatch.setattr(release, "BATCH", 2)
    await s.add_users()
    damaged = [await s.hold(-60) for _ in range(3)]
    sound = await s.hold(-1)
    await database.execute(
        "test.damage",
        "UPDATE relaymail.message_part SET content = 'x' WHERE message_id = ANY (%s::uuid[])",
        ([one.id for one in damaged],),
    )
    assert await s.releaser().release_due() == 1
    released = await database.query(
        "test.released", "SELECT id FROM relaymail.message WHERE released_at IS NOT NULL"
    )
    assert [UUID(str(id)) for (id,) in released] == [sound.id]


async def test_what_does_not_fit_the_columns_is_released_without_them(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Situation(database, tmp_path)
    await s.add_users()
    await s.hold(-2)
    await s.hold(-1)
    unfit = iter(("x" * 1001,))

    def misread(raw: bytes | mmap.mmap) -> Summary:
        summary = summarize(raw)
        return replace(summary, subject=next(unfit, summary.subject))

    monkeypatch.setattr(release, "summarize", misread)
    assert await s.releaser().release_due() == 2
    subjects = await database.query("test.subjects", 'SELECT "Subject" FROM public."Emails" ORDER BY 1')
    assert subjects == [("(No Subject)",), ("later",)]


async def test_a_mistake_of_ours_is_not_the_last_look(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = Situation(database, tmp_path)
    await s.add_users()
    await s.hold(-1)
    real = held.due
    mistakes = iter((RuntimeError("a mistake"),))

    async def due(*arguments: Any) -> list[Held]:
        for mistake in mistakes:
            raise mistake
        return await real(*arguments)

    monkeypatch.setattr(held, "due", due)
    clock = Clock()
    releaser = s.releaser(clock)
    releaser.start()
    clock.advance(release.INTERVAL)
    await until(reactor, lambda: s.released == 1)
    await releaser.stop()
