"""The outbox in a real database."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Literal

import pytest
from twisted.internet.defer import Deferred, gatherResults

from relaymail.store import outbox
from relaymail.store.database import Database
from relaymail.store.outbox import FailedRow, OutboxRow
from tests.notify.rows import pass_time, put, rows, states, until


async def claim_one(database: Database) -> OutboxRow:
    """Claim the one row that is due."""
    (row,) = await outbox.claim(database, 10, 60)
    return row


async def test_a_claim_hands_out_what_the_storing_transaction_wrote(database: Database) -> None:
    (message,) = await put(database, '{"b": 1,   "a": "Grüße"}')
    row = await claim_one(database)
    assert (row.message_id, row.payload, row.attempts) == (message, '{"b": 1,   "a": "Grüße"}', 0)
    assert isinstance(row.email_id, uuid.UUID)
    assert 0 <= row.age < 10


async def test_a_claimed_row_is_nobody_elses_until_its_lease_ends(database: Database) -> None:
    await put(database, "{}")
    first = await claim_one(database)
    assert await outbox.claim(database, 10, 60) == []
    await pass_time(database, 61)
    second = await claim_one(database)
    assert second.id == first.id
    assert second.token != first.token


async def test_a_claim_takes_the_longest_due_first_and_no_more_than_asked(database: Database) -> None:
    await put(database, '"old"', '"older"', '"new"')
    await database.execute(
        "test.due",
        "UPDATE relaymail.outbox SET due_at = now() - CASE payload::text"
        " WHEN '\"older\"' THEN interval '2 hours' WHEN '\"old\"' THEN interval '1 hour' ELSE '0' END",
    )
    found = await outbox.claim(database, 2, 60)
    assert sorted(row.payload for row in found) == ['"old"', '"older"']


async def test_a_row_is_not_claimed_before_it_is_due(database: Database) -> None:
    await put(database, "{}")
    row = await claim_one(database)
    assert await outbox.defer(database, [FailedRow(row, "HTTP 503", 100)]) == 1
    assert await outbox.claim(database, 10, 60) == []
    await pass_time(database, 101)
    again = await claim_one(database)
    assert again.attempts == 1
    assert await rows(database, "last_error") == [("HTTP 503",)]


async def test_two_claims_at_once_share_the_rows(database: Database) -> None:
    await put(database, *["{}"] * 100)

    async def taken() -> list[int]:
        found = []
        while claimed := await outbox.claim(database, 7, 60):
            found += [row.id for row in claimed]
        return found

    shares = await gatherResults([Deferred.fromCoroutine(taken()) for _ in range(4)])
    everything = [one for share in shares for one in share]
    assert len(everything) == len(set(everything)) == 100


async def test_sent_rows_are_finished_with_one_event_each(database: Database) -> None:
    messages = await put(database, '"a"', '"b"')
    claimed = await outbox.claim(database, 10, 60)
    assert await outbox.mark_sent(database, claimed) == 2
    assert await outbox.mark_sent(database, claimed) == 0
    assert (
        await rows(database, "state, attempts, lease_token, finished_at IS NOT NULL")
        == [("sent", 1, None, True)] * 2
    )
    events = await database.query("test.events", "SELECT message_id, kind, detail FROM relaymail.event")
    emails = dict(await rows(database, "message_id, email_id::text"))
    assert sorted(events, key=str) == sorted(
        [(message, "notified", {"email_id": emails[message]}) for message in messages], key=str
    )


async def test_a_late_worker_changes_nothing(database: Database) -> None:
    await put(database, "{}")
    late = await claim_one(database)
    await pass_time(database, 61)
    now = await claim_one(database)
    failure = FailedRow(late, "late", 5)
    assert await outbox.mark_sent(database, [late]) == 0
    assert await outbox.defer(database, [failure]) == 0
    assert await outbox.bury(database, [failure]) == 0
    assert await outbox.release(database, [late]) == 0
    assert await rows(database, "state, attempts, last_error, lease_token") == [
        ("pending", 0, None, now.token)
    ]
    assert await database.query("test.events", "SELECT 1 FROM relaymail.event") == []


async def test_released_rows_are_due_at_once_without_an_attempt(database: Database) -> None:
    await put(database, "{}", "{}")
    claimed = await outbox.claim(database, 10, 60)
    assert await outbox.release(database, claimed) == 2
    assert [row.attempts for row in await outbox.claim(database, 10, 60)] == [0, 0]


async def test_each_failure_keeps_its_own_error_and_delay(database: Database) -> None:
    await put(database, '"a"', '"b"')
    a, b = await outbox.claim(database, 10, 60)
    assert await outbox.defer(database, [FailedRow(a, "of a", 100), FailedRow(b, "of b", 1000)]) == 2
    assert await rows(database, "last_error, round(extract(epoch FROM due_at - now()) / 100)::int") == [
        ("of a", 1),
        ("of b", 10),
    ]


async def test_dead_rows_are_kept_and_live_again_after_a_retry(database: Database) -> None:
    await put(database, '"a"', '"b"', '"c"')
    a, b, c = await outbox.claim(database, 10, 60)
    await outbox.mark_sent(database, [c])
    await outbox.bury(database, [FailedRow(a, "HTTP 404"), FailedRow(b, "HTTP 404")])
    await pass_time(database, 100 * 3600)
    assert await outbox.claim(database, 10, 60) == []
    assert await outbox.retry(database, [a.id, c.id, 987654]) == 1
    assert await states(database) == ["pending", "dead", "sent"]
    again = await claim_one(database)
    assert (again.id, again.attempts) == (a.id, 0)
    assert again.age < 10
    assert await outbox.retry_all(database) == 1
    assert await states(database) == ["pending", "pending", "sent"]


async def test_a_retry_of_waiting_rows_makes_them_due(database: Database) -> None:
    await put(database, "{}")
    await outbox.defer(database, [FailedRow(await claim_one(database), "HTTP 503", 3600)])
    assert await outbox.retry_all(database, "pending") == 1
    assert (await claim_one(database)).attempts == 0


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("state", ["dead", "pending"])
async def test_a_retry_of_all_goes_on_to_the_last(
    database: Database, monkeypatch: pytest.MonkeyPatch, count: int, state: Literal["dead", "pending"]
) -> None:
    monkeypatch.setattr(outbox, "RETRY_BATCH", 2)
    await put(database, *["{}"] * count)
    failures = [FailedRow(row, "HTTP 404", 3600) for row in await outbox.claim(database, 10, 60)]
    await (outbox.bury if state == "dead" else outbox.defer)(database, failures)
    assert await outbox.retry_all(database, state) == count
    assert len(await outbox.claim(database, 10, 60)) == count


async def test_a_retry_wakes_the_notifiers(database: Database) -> None:
    heard: list[str] = []
    database.listen(outbox.CHANNEL, heard.append)
    await until(lambda: heard)
    await outbox.retry_all(database)
    await until(lambda: len(heard) > 1)


async def test_rows_are_listed_by_state(database: Database) -> None:
    await put(database, *['"sent"'] * 2, *['"dead"'] * 2, *['"pending"'] * 2)
    one, two, three, four, five, six = await outbox.claim(database, 10, 60)
    await outbox.mark_sent(database, [one, two])
    await outbox.bury(database, [FailedRow(three, "x"), FailedRow(four, "y")])
    await outbox.defer(database, [FailedRow(five, "z", 100)])
    listed = {
        state: [entry.id for entry in await outbox.list_rows(database, state)]
        for state in (None, "sent", "dead", "pending")
    }
    assert listed == {
        None: [six.id, five.id, four.id, three.id, two.id, one.id],
        "sent": [two.id, one.id],
        "dead": [three.id, four.id],
        "pending": [six.id, five.id],
    }
    (entry,) = await outbox.list_rows(database, "dead", 1)
    assert (entry.state, entry.attempts, entry.last_error) == ("dead", 1, "x")
    assert entry.finished_at is not None
    assert entry.finished_at >= entry.created_at


async def test_counts_tell_what_waits_and_for_how_long(database: Database) -> None:
    assert await outbox.counts(database) == outbox.OutboxCounts(0, 0, 0, 0.0)
    await put(database, *["{}"] * 4)
    await pass_time(database, 300)
    dead, later, *_ = await outbox.claim(database, 10, 60)
    await outbox.bury(database, [FailedRow(dead, "x")])
    await outbox.defer(database, [FailedRow(later, "x", 1000)])
    counts = await outbox.counts(database)
    assert replace(counts, oldest_due_seconds=0.0) == outbox.OutboxCounts(3, 2, 1, 0.0)
    assert 300 <= counts.oldest_due_seconds < 320


async def test_counts_of_rows_that_are_not_due_yet_are_not_negative(database: Database) -> None:
    await put(database, "{}")
    await outbox.defer(database, [FailedRow(await claim_one(database), "x", 1000)])
    assert await outbox.counts(database) == outbox.OutboxCounts(1, 0, 0, 0.0)


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_a_purge_takes_what_finished_long_ago_and_nothing_else(database: Database, batch: int) -> None:
    await put(database, '"sent"', '"dead"', '"waiting"')
    sent, dead, _ = await outbox.claim(database, 10, 60)
    await outbox.mark_sent(database, [sent])
    await outbox.bury(database, [FailedRow(dead, "x")])
    await pass_time(database, 31 * 86400)
    await put(database, '"sent lately"', '"new"')
    (lately,) = [row for row in await outbox.claim(database, 10, 60) if row.payload == '"sent lately"']
    await outbox.mark_sent(database, [lately])
    assert await outbox.purge(database, 32, batch) == 0
    assert await outbox.purge(database, 30, batch) == 2
    assert await rows(database, "payload") == [("waiting",), ("sent lately",), ("new",)]
