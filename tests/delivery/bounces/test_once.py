"""Each report is made once, gathers whom it can, and keeps no other from being made."""

from __future__ import annotations

from uuid import UUID

from twisted.internet.defer import Deferred, gatherResults

from relaymail.delivery.bounces import LEASE
from relaymail.message.record import Record
from relaymail.store import debts
from relaymail.store.database import DatabaseUnavailable
from relaymail.store.messages import MessageStore
from tests.delivery.bounces.situation import GENERATED, Situation, fields
from tests.store.queued import deferred, failed, one


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
