"""Workers, senders and operators at the same queue at once, in any order: every row stays reachable."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults

from relaymail.store import queue_admin
from relaymail.store.database import Database
from relaymail.store.queue import Job
from tests.store.queued import all_ids, deferred, delivered, failed, fill, ids, one, queue_of

DOMAINS = [f"d{n}.example" for n in range(4)]
STEPS = 60

# Every queued row is announced by an arrival, or belongs to a lane that begins no later than it and has its
# turn (by itself, or by an arrival) when the row is due, or now, or when its destination is no longer blocked
STRANDED = """
WITH turn AS (
    SELECT destination, priority, due_at FROM relaymail.lane
    UNION ALL SELECT destination, priority, due_at FROM relaymail.arrival
)
SELECT count(*) FROM relaymail.queue AS q LEFT JOIN relaymail.blocked AS b USING (destination)
 WHERE q.state = 'queued'
   AND NOT EXISTS (SELECT FROM relaymail.arrival AS a
                    WHERE (a.destination, a.priority) = (q.destination, q.priority) AND a.due_at <= q.due_at)
   AND NOT EXISTS (SELECT FROM relaymail.lane AS l JOIN turn AS t USING (destination, priority)
                    WHERE (l.destination, l.priority) = (q.destination, q.priority) AND l.first_at <= q.due_at
                      AND t.due_at <= greatest(q.due_at, now(), b.blocked_until, b.probe_until))
"""


class Party:
    """Somebody who does one thing after the other."""

    def __init__(self, database: Database, dice: random.Random, name: str) -> None:
        self.database = database
        self.dice = dice
        self.queue = queue_of(database, name)
        self.jobs: list[Job] = []

    async def step(self) -> None:
        actions = (
            [self.claim] * 4 + [self.settle] * 4 + [self.give_back, self.drop, self.arrive, self.operate]
        )
        await self.dice.choice([*actions, self.operate, self.block, self.unblock, self.extend])()

    async def claim(self) -> None:
        lease = self.dice.choice([0, 60, 60])
        only = self.dice.choice([None, None, [self.dice.choice(DOMAINS)]])
        limit, share = self.dice.randint(1, 12), self.dice.randint(1, 6)
        self.jobs += await self.queue.claim(limit, share=share, lease=lease, only=only)

    async def settle(self) -> None:
        if self.jobs:
            job = self.take()
            outcome = self.dice.choice([delivered, deferred, failed])
            more = {"delay": self.dice.choice([0.0, 0.0, 60.0])} if outcome is deferred else {}
            await self.queue.begin_transfer(job, ids(job), host="mx", address="a", tls=None)
            await self.queue.settle(outcome(job, **more))

    async def give_back(self) -> None:
        if self.jobs:
            await self.queue.give_back([self.take()])

    async def drop(self) -> None:
        """Be killed with a message in hand."""
        if self.jobs:
            self.take()

    async def extend(self) -> None:
        await self.queue.extend(self.jobs, self.dice.choice([0, 60]))

    async def arrive(self) -> None:
        await fill(
            self.database,
            self.dice.choice(DOMAINS),
            self.dice.randint(1, 8),
            priority=self.dice.randint(-1, 1),
        )

    async def operate(self) -> None:
        rows = await all_ids(self.database)
        some = self.dice.sample(rows, min(len(rows), 10))
        what = self.dice.randint(0, 5)
        if what == 0:
            await queue_admin.hold(self.database, some)
        elif what <= 2:
            await queue_admin.release(self.database, rows)
        elif what == 3:
            await queue_admin.retry(self.database, some)
        elif what == 4:
            await queue_admin.reroute(self.database, some, self.dice.choice(DOMAINS))
        else:
            await queue_admin.cancel(self.database, some[:2])

    async def block(self) -> None:
        await self.queue.block(self.dice.choice(DOMAINS), "refused", first=self.dice.choice([0, 60]))

    async def unblock(self) -> None:
        await self.queue.unblock(self.dice.choice(DOMAINS))

    def take(self) -> Job:
        return self.jobs.pop(self.dice.randrange(len(self.jobs)))

    async def run(self) -> None:
        for _ in range(STEPS):
            await self.step()


@pytest.mark.parametrize("seed", range(4))
async def test_no_row_is_ever_out_of_reach(database: Database, tmp_path: Path, seed: int) -> None:
    for domain in DOMAINS:
        await fill(database, domain, 20)
    parties = [Party(database, random.Random(seed * 10 + n), f"host-{n}") for n in range(4)]
    await gatherResults([Deferred.fromCoroutine(party.run()) for party in parties], consumeErrors=True)
    assert await one(database, STRANDED) == 0

    # And so everything that is not held can be brought to an end
    for party in parties:
        await party.queue.give_back(party.jobs)
    for domain in DOMAINS:
        await parties[0].queue.unblock(domain)
    await database.execute(
        "test.time",
        "UPDATE relaymail.queue SET due_at = now() WHERE due_at > now();"
        " UPDATE relaymail.lane SET due_at = now(), first_at = least(first_at, now())",
    )
    left = 0
    while jobs := await parties[0].queue.claim(50, share=20):
        left += len(ids(*jobs))
        for job in jobs:
            await parties[0].queue.settle(delivered(job))
    assert await one(database, "SELECT count(*) FROM relaymail.queue WHERE state = 'queued'") == 0
    assert left > 0


async def test_an_arrival_is_seen_however_close_it_comes_to_a_claim(database: Database) -> None:
    """Two claim while a third queues one row after the other: each is claimed once, without a repair."""
    total, claimed = 120, []
    done = [False]

    async def send() -> None:
        for _ in range(total):
            await fill(database, "x.example", 1)
        done[0] = True

    async def work(name: str) -> None:
        queue = queue_of(database, name)
        while True:
            last = done[0]
            jobs = await queue.claim(3)
            claimed.extend(ids(*jobs))
            for job in jobs:
                await queue.settle(delivered(job))
            if last and not jobs:
                return

    await gatherResults(
        [Deferred.fromCoroutine(one_of) for one_of in (send(), work("a"), work("b"))], consumeErrors=True
    )
    await work("c")
    assert len(claimed) == len(set(claimed)) == total
