"""Who is told of what: senders here, elsewhere and nowhere, and only of what they asked for."""

from __future__ import annotations

import pytest

from relaymail.store.queue import Action
from tests.delivery.bounces.situation import GENERATED, Situation, fields, parts
from tests.store.queued import deferred, delivered, failed, one


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


async def only_the_login_is_told(s: Situation, sender: str, *, sends: bool = True) -> None:
    """Mail of ``sender`` fails, with a login and without: the user who logged in gets the one report."""
    await s.add_anna()
    for login in (True, False):
        await s.put(sender=sender, login=login)
    await s.fail()
    assert await s.bounces(sends=sends).settle_debts() == 2
    assert sorted(s.observed) == [("failed", "dropped"), ("failed", "stored")]
    row = await one(s.database, 'SELECT "Address", "UserId" FROM public."EmailRecipients"')
    assert row == (sender, s.anna)


async def test_an_address_of_ours_that_nobody_has_is_told_by_way_of_the_login(situation: Situation) -> None:
    await only_the_login_is_told(situation, "info@example.test")


async def test_where_mail_is_not_sent_on_no_report_waits_to_be_sent(situation: Situation) -> None:
    s = situation
    await only_the_login_is_told(s, "anna@elsewhere.example", sends=False)
    assert await one(s.database, "SELECT count(*) FROM relaymail.queue WHERE state = 'queued'") == 0
    assert await s.owed() == 0


async def test_a_sender_deleted_meanwhile_is_no_obstacle(situation: Situation) -> None:
    s = situation
    await s.put(sender="info@example.test")
    await s.fail()
    assert await s.bounces().settle_debts() == 1
    assert await one(s.database, 'SELECT "UserId" FROM public."EmailRecipients"') is None
