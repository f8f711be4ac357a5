"""What is over age goes, what is not stays."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import maybeDeferred

from relaymail.store import mta_sts
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from relaymail.store.queue_purge import purge_rows
from relaymail.store.retention import DAY, Retention
from relaymail.store.suppression import Suppressions
from tests.conftest import reactor
from tests.store.queued import all_ids, deferred, delivered, fill, one, put, queue_of, states
from tests.store.records import record


def retention(database: Database, messages: float | None = None) -> Retention:
    return Retention(
        database, events=90 * DAY, outbox=30 * DAY, queue=30 * DAY, messages=messages, reactor=reactor
    )


async def test_old_events_finished_outbox_rows_and_messages_are_deleted(
    database: Database, tmp_path: Path
) -> None:
    store = MessageStore(database, reactor=reactor, run=maybeDeferred)
    for n in range(4):
        await store.accept(await record(b"Subject: %d\r\n\r\n" % n, tmp_path))
    await database.execute(
        "test.age", "UPDATE relaymail.event SET at = now() - interval '91 days' WHERE id <= 3"
    )
    await database.execute(
        "test.age",
        "UPDATE relaymail.message SET received_at = now() - interval '11 days' WHERE subject IN ('0', '1')",
    )
    keeping = retention(database)
    nothing = {"events": 0, "outbox": 0, "queue": 0, "suppressions": 0, "policies": 0}
    assert await keeping.purge() == {**nothing, "events": 3}
    purging = retention(database, messages=10 * DAY)
    assert await purging.purge() == {**nothing, "messages": 2}
    left = await database.query("test.left", "SELECT subject FROM relaymail.message ORDER BY subject")
    assert left == [("2",), ("3",)]
    assert await database.query("test.parts", "SELECT count(*) FROM relaymail.message_part") == [(2,)]


async def test_finished_rows_of_the_queue_go_with_their_attempts(database: Database, tmp_path: Path) -> None:
    queue = queue_of(database)
    for name in ("old", "owing", "retried", "held", "young"):
        await put(database, tmp_path, f"{name}@{name}.example")
    for job in await queue.claim(10):
        await queue.settle(delivered(job, owes="relayed" if "owing" in job.destination else None))
    rows = {row[1]: row[0] for row in await database.query("t", "SELECT id, recipient FROM relaymail.queue")}
    await database.execute(
        "test.age",
        """
        UPDATE relaymail.queue
           SET queued_at = now() - interval '40 days', finished_at = now() - interval '31 days'
         WHERE recipient <> 'young@young.example';
        UPDATE relaymail.queue SET state = 'held', finished_at = NULL WHERE recipient = 'held@held.example';
        UPDATE relaymail.queue SET state = 'failed' WHERE recipient = 'retried@retried.example';
        """,
    )
    await database.query(
        "test.retry", "SELECT relaymail.queue_retry(%s)", ([rows["retried@retried.example"]],)
    )
    assert (await retention(database).purge())["queue"] == 1
    assert "old@old.example" not in await states(database)
    assert len(await all_ids(database)) == 4
    assert await one(database, "SELECT count(*) FROM relaymail.attempt") == 4


async def test_the_walk_does_not_end_at_an_old_row_that_waits(database: Database) -> None:
    await fill(database, "x.example", 30)
    await database.execute(
        "test.age",
        """
        UPDATE relaymail.queue SET queued_at = now() - interval '40 days';
        UPDATE relaymail.queue SET state = 'delivered', finished_at = now() - interval '31 days' WHERE n > 5
        """,
    )
    assert await purge_rows(database, 30 * DAY, 3) == 25
    assert await purge_rows(database, 30 * DAY, 3) == 0


async def test_a_message_that_is_still_to_be_sent_is_kept(database: Database, tmp_path: Path) -> None:
    queue = queue_of(database)
    for name in ("queued", "held", "owing", "done"):
        await put(database, tmp_path, f"{name}@{name}.example")
    local = await put(database, tmp_path)
    later = await put(database, tmp_path)
    for job in await queue.claim(10):
        if job.destination in ("owing.example", "done.example"):
            await queue.settle(delivered(job, owes="relayed" if "owing" in job.destination else None))
        else:
            await queue.settle(deferred(job))
    await database.execute(
        "test.age",
        """
        UPDATE relaymail.message SET received_at = now() - interval '40 days';
        SELECT relaymail.queue_hold(array_agg(id)) FROM relaymail.queue WHERE destination = 'held.example'
        """,
    )
    await database.execute(
        "test.held",
        "UPDATE relaymail.message SET release_at = now() + interval '1 day' WHERE id = %s",
        (later,),
    )
    assert (await retention(database, messages=10 * DAY).purge())["messages"] == 2
    left = {row[0] for row in await database.query("test.left", "SELECT id FROM relaymail.message")}
    assert local not in left
    assert later in left
    assert sorted(await states(database)) == [
        "held@held.example",
        "owing@owing.example",
        "queued@queued.example",
    ]
    assert await one(database, "SELECT count(*) FROM relaymail.attempt") == 3


async def test_expired_suppressions_go(database: Database) -> None:
    suppressions = Suppressions(database, clock=reactor)
    await suppressions.add("gone@x.example", "no such user", life=-1)
    await suppressions.add("here@x.example", "no such user")
    assert (await retention(database).purge())["suppressions"] == 1
    assert [entry.address for entry in await suppressions.list_entries()] == ["here@x.example"]


async def test_mta_sts_policies_that_expired_go(database: Database) -> None:
    await mta_sts.save(database, "old.test", "1", "policy", -8 * 86_400)
    await mta_sts.save(database, "new.test", "1", "policy", -6 * 86_400)
    assert (await retention(database).purge())["policies"] == 1
    assert await mta_sts.read(database, "new.test") is not None


async def test_what_cannot_be_purged_keeps_nothing_else_from_it(database: Database, tmp_path: Path) -> None:
    store = MessageStore(database, reactor=reactor, run=maybeDeferred)
    await store.accept(await record(b"Subject: x\r\n\r\n", tmp_path))
    await database.execute(
        "test.age", "UPDATE relaymail.message SET received_at = now() - interval '11 days'"
    )
    await database.execute("test.away", "ALTER TABLE relaymail.event RENAME TO moved")
    purged = await retention(database, messages=10 * DAY).purge()
    assert "events" not in purged
    assert purged["messages"] == 1
