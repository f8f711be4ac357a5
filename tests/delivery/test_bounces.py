"""Reports that are owed become mail: each once, in the right mailbox, and only where someone wants it."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred

from relaymail.delivery.bounces import LEASE, Bounces, Reporting
from relaymail.message.envelope import Envelope, EnvelopeRecipient, Origin
from relaymail.message.record import Record
from relaymail.store import debts
from relaymail.store.accounts import Accounts
from relaymail.store.archive import Archive
from relaymail.store.database import Database, DatabaseUnavailable
from relaymail.store.messages import MessageStore
from relaymail.store.queue import Action, Job
from tests.conftest import reactor
from tests.store.queued import deferred, delivered, failed, one, queue_of
from tests.store.records import record

DAY = 86400.0
RAW = (
    b"From: anna@example.test\r\nTo: b@x.example\r\nSubject: Lunch\r\nMessage-ID: <lunch@example.test>\r\n"
    b"\r\nAt noon?\r\n"
)
GENERATED = "SELECT count(*) FROM relaymail.message WHERE listener = 'local'"


class Situation:
    """A user, mail of hers in the queue, and who reports."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.anna = uuid4()
        self.store = MessageStore(database, reactor=reactor, run=maybeDeferred)
        self.queue = queue_of(database)
        self.observed: list[tuple[str, str]] = []
        self.hints: list[str] = []

    def bounces(self, store: Any = None, life: float = 5 * DAY, *, sends: bool = True) -> Bounces:
        return Bounces(
            self.database,
            Accounts(self.database, clock=reactor),
            store or self.store,
            Reporting(
                server_name="mail.example.test",
                author="postmaster@example.test",
                hosted_domains=frozenset({"example.test"}),
                life=life,
                now=lambda: datetime.now(UTC),
                sends=sends,
            ),
            run=maybeDeferred,
            stored=lambda: self.hints.append("stored"),
            queued=lambda: self.hints.append("queued"),
            observe=lambda action, outcome: self.observed.append((action, outcome)),
        )

    async def add_anna(self) -> None:
        await self.database.execute(
            "test.user",
            'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
            " VALUES (%s, %s, 'test', 'anna@example.test', now())",
            (self.anna, str(self.anna)),
        )

    async def put(
        self,
        *addresses: str,
        sender: str = "anna@example.test",
        raw: bytes = RAW,
        login: bool = True,
        mail: Mapping[str, str | None] | None = None,
        rcpt: Mapping[str, str | None] | None = None,
        here: bool = False,
        release_at: datetime | None = None,
    ) -> UUID:
        """Anna sends a message to ``addresses``, by default one elsewhere."""
        made = await record(raw, self.folder)
        recipients = tuple(
            EnvelopeRecipient(address, None, rcpt or {}, None if here else address.rpartition("@")[2])
            for address in addresses or ("b@x.example",)
        )
        made = replace(
            made,
            origin=Origin(
                "submission", "S", "192.0.2.1", "laptop", login_user_id=self.anna if login else None
            ),
            envelope=Envelope(sender, recipients, mail or {}),
            emails=(),
            release_at=release_at,
        )
        return await self.store.accept(made)

    async def claim(self) -> list[Job]:
        return sorted(await self.queue.claim(500, share=500), key=lambda job: job.destination)

    async def fail(self, owes: Action = "failed", **more: Any) -> None:
        """Every recipient fails for good."""
        for job in await self.claim():
            await self.queue.settle(failed(job, owes=owes, **more))

    async def reports(self) -> list[UUID]:
        rows = await self.database.query(
            "test.reports", "SELECT id FROM relaymail.message WHERE listener = 'local' ORDER BY id"
        )
        return [row[0] for row in rows]

    async def report(self, id: UUID | None = None) -> EmailMessage:
        """The only report, or that one, as a reader gets it."""
        if id is None:
            (id,) = await self.reports()
        raw = b"".join([part async for part in Archive(self.database).export_delivered(id)])
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        assert message.get_content_type() == "multipart/report"
        return message

    async def owed(self) -> int:
        owed: int = await one(
            self.database, "SELECT count(*) FROM relaymail.queue WHERE owed_dsn IS NOT NULL"
        )
        return owed

    async def end_leases(self) -> None:
        await self.database.execute(
            "test.end", "UPDATE relaymail.queue SET dsn_due_at = now() WHERE dsn_due_at IS NOT NULL"
        )


@pytest.fixture
def situation(database: Database, tmp_path: Path) -> Situation:
    return Situation(database, tmp_path)


def parts(message: EmailMessage) -> list[EmailMessage]:
    return [part for part in message.iter_parts() if isinstance(part, EmailMessage)]


def fields(message: EmailMessage) -> list[dict[str, str]]:
    blocks: Any = parts(message)[1].get_payload()
    return [dict(block.items()) for block in blocks]


async def test_a_failure_comes_back_into_the_senders_mailbox(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    original = await s.put(mail={"ENVID": "Q+2B1"}, rcpt={"ORCPT": "rfc822;B@x.example"})
    await s.fail()
    assert await s.bounces().settle_debts() == 1
    assert (s.observed, s.hints) == ([("failed", "stored")], ["stored"])
    (id,) = await s.reports()
    report = await s.report()
    assert report["Subject"] == "Undeliverable: Lunch"
    assert report["Return-Path"] == "<>"
    assert report["In-Reply-To"] == "<lunch@example.test>"
    of_message, recipient = fields(report)
    assert of_message["Original-Envelope-Id"] == "Q+1"
    assert recipient["Original-Recipient"] == "rfc822;B@x.example"
    assert recipient["Status"] == "5.1.1"
    assert recipient["Diagnostic-Code"] == "smtp; 550 5.1.1 No such user"
    assert recipient["Remote-MTA"] == "dns; mx.example.org"
    assert "At noon?" in parts(report)[2].as_string()
    row = await one(
        s.database,
        'SELECT e."FromAddress", e."Subject", e."InReplyTo", r."Address", r."Type", r."UserId", r."IsRead",'
        " o.payload->'userIds'->>0 FROM public.\"Emails\" e"
        ' JOIN public."EmailRecipients" r ON r."EmailId" = e."Id"'
        ' JOIN relaymail.outbox o ON o.email_id = e."Id"',
    )
    assert row == (
        "postmaster@example.test",
        "Undeliverable: Lunch",
        "lunch@example.test",
        "anna@example.test",
        "To",
        s.anna,
        False,
        str(s.anna),
    )
    assert await one(s.database, "SELECT reverse_path FROM relaymail.message WHERE id = %s", id) == ""
    detail = await one(s.database, "SELECT detail FROM relaymail.event WHERE kind = 'reported'")
    assert detail == {"action": "failed", "report": str(id), "recipients": 1}
    assert await one(s.database, "SELECT dsn_id FROM relaymail.queue WHERE message_id = %s", original) == id
    assert await s.owed() == 0
    assert await s.bounces().settle_debts() == 0


async def test_it_is_in_the_thread_of_what_she_sent(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put()
    thread = uuid4()
    await s.database.execute(
        "test.sent",
        'INSERT INTO public."Emails" ("Id", "MessageId", "FromAddress", "Subject", "ReceivedAt", "SizeBytes",'
        ' "ThreadId", "SentByUserId") VALUES (%s, %s, %s, %s, now(), 1, %s, %s)',
        (uuid4(), "lunch@example.test", "anna@example.test", "Lunch", thread, s.anna),
    )
    await s.fail()
    await s.bounces().settle_debts()
    sql = 'SELECT "ThreadId" FROM public."Emails" WHERE "SentByUserId" IS NULL'
    assert await one(s.database, sql) == thread


class StoresAndDies:
    """A store whose process ends behind the commit."""

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    async def accept(self, record: Record) -> UUID:
        await self._store.accept(record)
        raise DatabaseUnavailable("gone")


async def test_a_crash_between_storing_and_clearing_does_not_make_two(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put("b@x.example")
    await s.fail()
    assert await s.bounces(StoresAndDies(s.store)).settle_debts() == 0
    assert await s.owed() == 1
    # While the lease lasts nobody else makes it
    assert await s.bounces().settle_debts() == 0
    await s.end_leases()
    assert await s.bounces().settle_debts() == 1
    assert len(await s.reports()) == 1
    assert await one(s.database, 'SELECT count(*) FROM public."Emails"') == 1
    assert await s.owed() == 0


async def test_what_comes_to_be_owed_meanwhile_is_another_report(situation: Situation) -> None:
    """Whom a report is about is fixed before it is stored: none is told of twice, none is left out."""
    s = situation
    await s.add_anna()
    await s.put("b@x.example", "c@y.example")
    first, second = await s.claim()
    await s.queue.settle(failed(first, owes="failed"))
    await s.queue.settle(deferred(second))
    await s.bounces(StoresAndDies(s.store)).settle_debts()
    await s.database.execute("test.due", "UPDATE relaymail.queue SET due_at = now()")
    await s.queue.repair()
    await s.fail()
    await s.end_leases()
    assert await s.bounces().settle_debts() == 2
    told = [fields(await s.report(id))[1]["Final-Recipient"] for id in await s.reports()]
    assert told == ["rfc822;b@x.example", "rfc822;c@y.example"]


async def test_any_number_of_hosts_make_each_once(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    for _ in range(30):
        await s.put("b@x.example", "c@x.example")
    await s.fail()
    hosts = [Deferred.fromCoroutine(s.bounces().settle_debts()) for _ in range(3)]
    assert sum(await gatherResults(hosts)) == 30
    assert await one(s.database, GENERATED) == 30
    assert await one(s.database, 'SELECT count(*) FROM public."Emails"') == 30
    assert await s.owed() == 0


async def test_several_recipients_of_a_message_are_told_of_in_one(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put("b@x.example", "c@x.example", "d@y.example")
    x, y = await s.claim()
    await s.queue.settle(failed(x, owes="failed"))
    # One of them is still being tried: it may fail in a moment
    assert await s.bounces().settle_debts() == 0
    await s.queue.settle(failed(y, owes="failed"))
    assert await s.bounces().settle_debts() == 1
    addresses = [group["Final-Recipient"] for group in fields(await s.report())[1:]]
    assert addresses == ["rfc822;b@x.example", "rfc822;c@x.example", "rfc822;d@y.example"]


async def test_nobody_is_kept_waiting_for_long_by_those_still_tried(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put("b@x.example", "c@y.example")
    x, _ = await s.claim()
    await s.queue.settle(failed(x, owes="failed"))
    age = f"{debts.GATHER + 1} s"
    await s.database.execute(
        "test.age", "UPDATE relaymail.queue SET last_at = last_at - %s::interval", (age,)
    )
    assert await s.bounces().settle_debts() == 1


async def test_a_report_has_so_many_recipients_at_most(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put(*[f"u{n}@x.example" for n in range(debts.MOST_RECIPIENTS + 10)])
    await s.fail()
    assert await s.bounces().settle_debts() == 2
    told = [group["Final-Recipient"] for id in await s.reports() for group in fields(await s.report(id))[1:]]
    assert len(told) == len(set(told)) == debts.MOST_RECIPIENTS + 10


async def test_a_sender_elsewhere_is_sent_it_from_the_null_sender(situation: Situation) -> None:
    s = situation
    await s.put(sender="anna@Elsewhere.Example", login=False)
    await s.fail()
    assert await s.bounces().settle_debts() == 1
    assert (s.observed, s.hints) == ([("failed", "queued")], ["queued"])
    (job,) = await s.claim()
    assert (job.reverse_path, job.destination) == ("", "elsewhere.example")
    assert job.recipients[0].address == "anna@Elsewhere.Example"
    assert job.recipients[0].parameters == {"NOTIFY": "NEVER"}
    assert (await s.report())["Return-Path"] is None
    assert await one(s.database, 'SELECT count(*) FROM public."Emails"') == 0


async def test_a_report_that_gets_nowhere_is_dropped_and_counted(situation: Situation) -> None:
    s = situation
    await s.put(sender="anna@elsewhere.example", login=False)
    await s.fail()
    await s.bounces().settle_debts()
    await s.fail()
    assert await s.bounces().settle_debts() == 1
    assert s.observed == [("failed", "queued"), ("failed", "dropped")]
    assert await one(s.database, GENERATED) == 1
    why = await one(s.database, "SELECT detail->>'why' FROM relaymail.event WHERE kind = 'not reported'")
    assert why == "null sender"
    assert await s.owed() == 0


@pytest.mark.parametrize(
    ("action", "notify", "outcome"),
    [
        ("failed", "NEVER", "unwanted"),
        ("failed", "DELAY,SUCCESS", "unwanted"),
        ("failed", "FAILURE", "stored"),
        ("delayed", None, "stored"),
        ("delayed", "FAILURE", "unwanted"),
        ("delayed", "DELAY", "stored"),
        ("relayed", None, "unwanted"),
        ("relayed", "SUCCESS", "stored"),
        ("delivered", "SUCCESS,FAILURE", "stored"),
    ],
)
async def test_notify_is_honoured(
    situation: Situation, action: Action, notify: str | None, outcome: str
) -> None:
    s = situation
    await s.add_anna()
    await s.put(rcpt={} if notify is None else {"NOTIFY": notify})
    (job,) = await s.claim()
    if action == "failed":
        await s.queue.settle(failed(job, owes=action))
    elif action == "delayed":
        await s.queue.settle(deferred(job, owes=action))
    else:
        await s.queue.settle(delivered(job, owes=action))
    await s.bounces().settle_debts()
    assert s.observed == [(action, outcome)]
    assert await s.owed() == 0
    assert await one(s.database, GENERATED) == (outcome == "stored")
    if outcome == "stored":
        assert fields(await s.report())[1]["Action"] == action


async def test_only_those_who_asked_are_told_of(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put("b@x.example", "c@x.example")
    await s.database.execute(
        "test.never",
        'UPDATE relaymail.envelope_recipient SET parameters = \'{"NOTIFY": "NEVER"}\' WHERE n = 0',
    )
    await s.fail()
    assert await s.bounces().settle_debts() == 1
    assert [group["Final-Recipient"] for group in fields(await s.report())[1:]] == ["rfc822;c@x.example"]
    assert await s.owed() == 0


async def test_a_delay_is_told_with_when_it_ends_and_only_to_those_who_logged_in(
    situation: Situation,
) -> None:
    s = situation
    await s.add_anna()
    for login in (True, False):
        await s.put(login=login)
    for job in await s.claim():
        await s.queue.settle(deferred(job, owes="delayed"))
    assert await s.bounces().settle_debts() == 2
    assert sorted(s.observed) == [("delayed", "stored"), ("delayed", "unwanted")]
    report = await s.report()
    until = email.utils.parsedate_to_datetime(fields(report)[1]["Will-Retry-Until"])
    assert 4.9 * DAY < (until - datetime.now(UTC)).total_seconds() < 5.1 * DAY
    assert parts(report)[2].get_content_type() == "text/rfc822-headers"


async def test_without_an_end_none_is_told(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put()
    (job,) = await s.claim()
    await s.queue.settle(deferred(job, owes="delayed"))
    await s.bounces(life=float("inf")).settle_debts()
    assert "Will-Retry-Until" not in fields(await s.report())[1]


async def test_who_is_here_and_got_it_is_told_of_to_who_asked(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    success = {"NOTIFY": "SUCCESS,FAILURE"}
    for login in (True, False):
        await s.put("bob@example.test", rcpt=success, login=login, here=True)
    await s.put("bob@example.test", here=True)
    await s.put("bob@example.test", rcpt=success, sender="", here=True)
    assert await s.owed() == 1
    assert await s.bounces().settle_debts() == 1
    assert s.observed == [("delivered", "stored")]
    report = await s.report()
    assert report["Subject"] == "Delivered: Lunch"
    assert fields(report)[1] == {
        "Final-Recipient": "rfc822;bob@example.test",
        "Action": "delivered",
        "Status": "2.1.5",
    }
    assert parts(report)[2].get_content_type() == "text/rfc822-headers"
    assert await s.claim() == []


async def test_a_message_that_is_held_is_not_delivered_yet(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    later = datetime.now(UTC) + timedelta(hours=1)
    await s.put("bob@example.test", rcpt={"NOTIFY": "SUCCESS"}, here=True, release_at=later)
    assert await s.bounces().settle_debts() == 0
    await s.end_leases()
    assert await s.bounces().settle_debts() == 1


async def test_ret_and_length_say_what_is_returned(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    long = RAW + b"x" * 70 + b"\r\n"
    for mail, raw in (({"RET": "HDRS"}, RAW), ({"RET": "FULL"}, RAW + long * 1000)):
        await s.put(mail=mail, raw=raw)
    await s.fail()
    assert await s.bounces().settle_debts() == 2
    for id in await s.reports():
        returned = parts(await s.report(id))[2]
        assert returned.get_content_type() == "text/rfc822-headers"
        assert "Subject: Lunch" in returned.as_string()
        assert "At noon?" not in returned.as_string()


async def test_bcc_is_not_returned(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put(raw=b"Bcc: secret@x.example\r\n" + RAW)
    await s.fail()
    await s.bounces().settle_debts()
    assert "secret" not in (await s.report()).as_string()


async def test_an_address_of_ours_that_nobody_has_is_told_by_way_of_the_login(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put(sender="info@example.test")
    await s.put(sender="info@example.test", login=False)
    await s.fail()
    assert await s.bounces().settle_debts() == 2
    assert sorted(s.observed) == [("failed", "dropped"), ("failed", "stored")]
    row = await one(s.database, 'SELECT "Address", "UserId" FROM public."EmailRecipients"')
    assert row == ("info@example.test", s.anna)


async def test_where_mail_is_not_sent_on_no_report_waits_to_be_sent(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put(sender="anna@elsewhere.example")
    await s.put(sender="anna@elsewhere.example", login=False)
    await s.fail()
    assert await s.bounces(sends=False).settle_debts() == 2
    assert sorted(s.observed) == [("failed", "dropped"), ("failed", "stored")]
    row = await one(s.database, 'SELECT "Address", "UserId" FROM public."EmailRecipients"')
    assert row == ("anna@elsewhere.example", s.anna)
    assert await one(s.database, "SELECT count(*) FROM relaymail.queue WHERE state = 'queued'") == 0
    assert await s.owed() == 0


async def test_a_sender_deleted_meanwhile_is_no_obstacle(situation: Situation) -> None:
    s = situation
    await s.put(sender="info@example.test")
    await s.fail()
    assert await s.bounces().settle_debts() == 1
    assert await one(s.database, 'SELECT "UserId" FROM public."EmailRecipients"') is None


async def test_one_that_cannot_be_stored_does_not_keep_the_others(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put("b@x.example")
    await s.put("c@y.example")
    await s.fail()

    class Picky:
        async def accept(self, record: Record) -> UUID:
            raw = record.content.memory()
            if (
                raw is not None
                and b"b@x.example" in raw.partition(b"rfc822-headers")[0].partition(b"Final")[2][:40]
            ):
                raise ValueError("a mistake of ours")
            return await s.store.accept(record)

    assert await s.bounces(Picky()).settle_debts() == 1
    assert await s.owed() == 1
    await s.end_leases()
    assert await s.bounces().settle_debts() == 1
    assert await one(s.database, GENERATED) == 2


async def test_an_original_that_is_damaged_is_reported_all_the_same(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    original = await s.put()
    await s.fail()
    await s.database.execute(
        "test.lose", "DELETE FROM relaymail.message_part WHERE message_id = %s", (original,)
    )
    assert await s.bounces().settle_debts() == 1
    assert fields(await s.report())[1]["Status"] == "5.1.1"


async def test_a_second_call_does_not_wait_for_the_first(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put()
    await s.fail()
    bounces = s.bounces()
    first = Deferred.fromCoroutine(bounces.settle_debts())
    assert await bounces.settle_debts() == 0
    assert await first == 1
    assert LEASE > 60


async def test_once_stopped_it_begins_no_more(situation: Situation) -> None:
    s = situation
    await s.add_anna()
    await s.put()
    await s.fail()
    bounces = s.bounces()
    bounces.stop()
    assert await bounces.settle_debts() == 0
    assert await s.owed() == 1
