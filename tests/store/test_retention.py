"""What is over age goes, what is not stays."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import maybeDeferred

from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from relaymail.store.retention import DAY, Retention
from tests.conftest import reactor
from tests.store.records import record


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
    keeping = Retention(database, events=90 * DAY, outbox=30 * DAY, messages=None, reactor=reactor)
    assert await keeping.purge() == {"events": 3, "outbox": 0}
    purging = Retention(database, events=90 * DAY, outbox=30 * DAY, messages=10 * DAY, reactor=reactor)
    assert await purging.purge() == {"events": 0, "outbox": 0, "messages": 2}
    left = await database.query("test.left", "SELECT subject FROM relaymail.message ORDER BY subject")
    assert left == [("2",), ("3",)]
    assert await database.query("test.parts", "SELECT count(*) FROM relaymail.message_part") == [(2,)]
