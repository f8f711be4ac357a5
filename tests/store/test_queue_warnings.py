"""Senders hear of delays of mail that nobody tries."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from relaymail.store import debts
from relaymail.store.database import Database
from relaymail.store.queue_warnings import warn_of_delays
from tests.store.queued import deferred, ids, one, put, queue_of

HOUR = 3600.0


async def test_a_delay_is_owed_once_to_who_logged_in_and_wants_it(database: Database, tmp_path: Path) -> None:
    ours = await put(database, tmp_path, "a@away.test")
    others = [
        await put(database, tmp_path, "b@away.test", rcpt={"NOTIFY": "FAILURE"}),
        await put(database, tmp_path, "c@away.test", sender=""),
    ]
    foreign = await put(database, tmp_path, "d@away.test")
    young = await put(database, tmp_path, "e@away.test")
    login = uuid4()
    await database.execute(
        "test.login",
        "UPDATE relaymail.message SET login_user_id = CASE WHEN id = %s THEN NULL ELSE %s::uuid END",
        (foreign, login),
    )
    await database.execute(
        "test.age",
        "UPDATE relaymail.queue SET queued_at = now() - interval '5 hours' WHERE message_id <> %s",
        (young,),
    )
    await database.execute(
        "test.block",
        "INSERT INTO relaymail.blocked (destination, failures, blocked_until, reason)"
        " VALUES ('away.test', 3, now() + interval '1 hour', 'the host did not answer')",
    )
    assert await warn_of_delays(database, 4 * HOUR, 2) == (2, 1)
    assert await warn_of_delays(database, 4 * HOUR, 100) == (2, 0)
    assert await warn_of_delays(database, 4 * HOUR, 100) == (0, 0)
    rows = await database.query(
        "test.rows",
        "SELECT message_id, owed_dsn, last_status, last_reply FROM relaymail.queue"
        " WHERE owed_dsn IS NOT NULL",
    )
    assert rows == [(ours, "delayed", "4.4.1", "the host did not answer")]
    assert others


async def test_what_is_being_tried_is_left_to_the_try(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@away.test")
    await database.execute(
        "test.lease",
        "UPDATE relaymail.queue SET queued_at = now() - interval '5 hours', lease_token = gen_random_uuid(),"
        " due_at = now() + interval '1 minute'",
    )
    assert await warn_of_delays(database, 4 * HOUR, 100) == (0, 0)


async def test_a_worker_that_comes_back_late_does_not_tell_again(database: Database, tmp_path: Path) -> None:
    await put(database, tmp_path, "a@away.test")
    await database.execute(
        "test.age",
        "UPDATE relaymail.message SET login_user_id = gen_random_uuid();"
        " UPDATE relaymail.queue SET queued_at = now() - interval '5 hours'",
    )
    queue = queue_of(database)
    (job,) = await queue.claim(10)
    assert not job.recipients[0].warned
    # It slept, and its lease is over; nobody has taken the row yet
    await database.execute("test.end", "UPDATE relaymail.queue SET due_at = now()")
    assert await warn_of_delays(database, 4 * HOUR, 100) == (1, 1)
    (debt,) = await debts.claim(database, 10, 60.0, gather=0.0)
    await debts.paid(database, [debt])
    assert await queue.settle(deferred(job, owes="delayed")) == set(ids(job))
    owed = await one(database, "SELECT owed_dsn FROM relaymail.queue")
    assert owed is None
