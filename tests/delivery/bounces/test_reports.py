"""What a report says, when, and the mailbox it is in."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tests.delivery.bounces.situation import DAY, RAW, Situation, fields, parts
from tests.store.queued import deferred, one


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
