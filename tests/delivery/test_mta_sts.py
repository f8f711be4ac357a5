"""Which MTA-STS policy counts for a domain: DNS, web server and database are real (RFC 8461)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock

from relaymail.delivery.mta_sts import MTASTS, REMEMBERED
from relaymail.delivery.mta_sts_policy import Policy
from relaymail.delivery.policy_fetch import PolicyFetcher
from relaymail.dns import Resolver
from relaymail.store.database import Database, DatabaseError
from tests.conftest import reactor, run_on_reactor
from tests.smtp_tls.conftest import issue
from tests.support.dns_server import DNSServer, Zones
from tests.support.policy_server import POLICY, PolicyServer, answer, trust
from tests.support.waiting import until

ENFORCED = Policy("enforce", 604800, ("mx.test",))
TESTING = POLICY.replace("enforce", "testing")
NONE = "version: STSv1\r\nmode: none\r\nmax_age: 86400\r\n"

ROOT = issue("Root", authority=True)


@pytest.fixture
def server(zones: Zones) -> Iterator[PolicyServer]:
    """The policy host of example.test, which has a policy with id 1."""
    zones.a("mta-sts.example.test", "127.0.0.1")
    announce(zones, "1")
    made = PolicyServer(reactor, issue("mta-sts.example.test", ROOT))
    yield made
    run_on_reactor(made.stop())


@pytest.fixture
def mta_sts(impatient: Resolver, database: Database, server: PolicyServer) -> Iterator[Callable[..., MTASTS]]:
    """Makes hosts on one database that remember nothing, unless told to."""
    made: list[MTASTS] = []

    def make(**options: Any) -> MTASTS:
        fetcher = PolicyFetcher(impatient, reactor=reactor, trust=trust(ROOT), port=server.port, limit=60)
        options = {"clock": Clock(), "remembered": 0, **options}
        made.append(MTASTS(impatient, database, fetcher.fetch, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def announce(zones: Zones, policy_id: str, domain: str = "example.test") -> None:
    zones.set(f"_mta-sts.{domain}", "TXT", f'"v=STSv1; id={policy_id};"')


async def age(database: Database, **shifts: float) -> None:
    """Let what is kept be older: each time lies so many seconds further back."""
    for column, seconds in shifts.items():
        sql = f"UPDATE relaymail.mta_sts SET {column} = {column} - %s * interval '1 second'"
        await database.execute("age", sql, (seconds,))


async def kept(database: Database) -> tuple[Any, ...]:
    sql = "SELECT policy_id, failed_id, failures, last_error FROM relaymail.mta_sts"
    rows = await database.query("kept", sql)
    assert len(rows) == 1
    return rows[0]


async def test_a_policy_is_fetched_once_and_kept_for_all_hosts(
    mta_sts: Callable[..., MTASTS], server: PolicyServer
) -> None:
    counted: list[str] = []
    assert await mta_sts(count=counted.append).policy("example.test") == ENFORCED
    assert await mta_sts(count=counted.append).policy("example.test") == ENFORCED
    assert len(server.requests) == 1
    assert counted == ["fetched"]


async def test_a_domain_that_announces_nothing_is_not_asked_for_a_policy(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones, database: Database
) -> None:
    zones.forget("_mta-sts.example.test")
    assert await mta_sts().policy("example.test") is None
    zones.set("_mta-sts.example.test", "TXT", '"v=STSv1; id=1"', '"v=STSv1; id=2"')
    assert await mta_sts().policy("example.test") is None
    zones.set("_mta-sts.example.test", "TXT", '"\\200v=STSv1; id=1"')
    assert await mta_sts().policy("example.test") is None
    assert server.requests == []
    assert await database.query("kept", "SELECT 1 FROM relaymail.mta_sts") == []


async def test_a_record_in_several_strings_is_one(
    mta_sts: Callable[..., MTASTS], zones: Zones, database: Database
) -> None:
    zones.set("_mta-sts.example.test", "TXT", '"v=STSv1; " "id=ab" "cd;"', '"v=spf1 -all"')
    assert await mta_sts().policy("example.test") == ENFORCED
    assert (await kept(database))[0] == "abcd"


async def test_the_record_may_be_an_alias(mta_sts: Callable[..., MTASTS], zones: Zones) -> None:
    zones.forget("_mta-sts.example.test")
    zones.cname("_mta-sts.example.test", "_mta-sts.provider.test")
    announce(zones, "7", "provider.test")
    assert await mta_sts().policy("example.test") == ENFORCED


async def test_a_new_id_brings_the_new_policy(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones, database: Database
) -> None:
    await mta_sts().policy("example.test")
    server.publish(TESTING)
    assert await mta_sts().policy("example.test") == ENFORCED, "the id is the same"
    announce(zones, "2")
    found = await mta_sts().policy("example.test")
    assert found is not None
    assert found.mode == "testing"
    assert (await kept(database))[0] == "2"


async def test_mode_none_does_away_with_a_policy(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones
) -> None:
    await mta_sts().policy("example.test")
    server.publish(NONE)
    announce(zones, "2")
    assert await mta_sts().policy("example.test") is None
    assert await mta_sts().policy("example.test") is None
    assert len(server.requests) == 2, "it is kept, too"


# What is kept counts until it expires


@pytest.mark.parametrize("lost", ["record", "dns", "silence"])
async def test_a_policy_counts_on_when_dns_does_not_tell_of_it_any_more(
    mta_sts: Callable[..., MTASTS], zones: Zones, lost: str
) -> None:
    await mta_sts().policy("example.test")
    match lost:
        case "record":
            zones.forget("_mta-sts.example.test")
        case "dns":
            zones.fail("_mta-sts.example.test", "TXT")
        case _:
            zones.silence("_mta-sts.example.test", "TXT")
    assert await mta_sts().policy("example.test") == ENFORCED


@pytest.mark.parametrize("broken", ["404", "no policy", "connection", "address"])
async def test_a_policy_counts_on_when_the_next_one_is_not_to_be_had(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones, database: Database, broken: str
) -> None:
    await mta_sts().policy("example.test")
    announce(zones, "2")
    match broken:
        case "404":
            server.publish("", status="404 Not Found")
        case "no policy":
            server.publish("<html>")
        case "connection":
            zones.a("mta-sts.example.test", "127.0.0.2")
        case _:
            zones.forget("mta-sts.example.test")
    assert await mta_sts().policy("example.test") == ENFORCED
    policy_id, failed_id, failures, error = await kept(database)
    assert (policy_id, failed_id, failures) == ("1", "2", 1)
    assert error


async def test_an_expired_policy_does_not_count(
    mta_sts: Callable[..., MTASTS], zones: Zones, database: Database
) -> None:
    await mta_sts().policy("example.test")
    zones.forget("_mta-sts.example.test")
    await age(database, expires_at=604_790)
    assert await mta_sts().policy("example.test") == ENFORCED
    await age(database, expires_at=10)
    assert await mta_sts().policy("example.test") is None


async def test_an_expired_policy_is_fetched_again(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, database: Database
) -> None:
    await mta_sts().policy("example.test")
    await age(database, expires_at=604_801, fetched_at=604_801)
    assert await mta_sts().policy("example.test") == ENFORCED
    assert len(server.requests) == 2


async def test_a_policy_without_lifetime_counts_for_the_mail_it_was_fetched_for(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones
) -> None:
    server.publish(POLICY.replace("604800", "0"))
    found = await mta_sts().policy("example.test")
    assert found is not None
    zones.forget("_mta-sts.example.test")
    assert await mta_sts().policy("example.test") is None


# Fetching again


async def test_a_policy_is_fetched_again_once_a_day(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, database: Database
) -> None:
    await mta_sts().policy("example.test")
    await age(database, fetched_at=86_300)
    await mta_sts().policy("example.test")
    assert len(server.requests) == 1
    await age(database, fetched_at=101, expires_at=86_401)
    await mta_sts().policy("example.test")
    assert len(server.requests) == 2
    [(left,)] = await database.query(
        "left", "SELECT extract(epoch FROM expires_at - now())::int FROM relaymail.mta_sts"
    )
    assert left > 604_700, "its lifetime has begun anew"


async def test_a_short_lived_policy_is_fetched_again_at_half_its_life(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, database: Database
) -> None:
    server.publish(POLICY.replace("604800", "1000"))
    await mta_sts().policy("example.test")
    await age(database, fetched_at=501)
    await mta_sts().policy("example.test")
    assert len(server.requests) == 2


async def test_a_fetch_that_failed_is_tried_again_after_longer_and_longer_waits(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones, database: Database
) -> None:
    server.publish("", status="500 Oops")
    counted: list[str] = []
    for tries, wait in enumerate((300, 600, 1200, 2400), 1):
        assert await mta_sts(count=counted.append).policy("example.test") is None
        assert await mta_sts(count=counted.append).policy("example.test") is None
        assert len(server.requests) == tries
        await age(database, retry_at=wait - 5)
        await mta_sts().policy("example.test")
        assert len(server.requests) == tries
        await age(database, retry_at=5)
    assert counted == ["failed"] * 4
    server.publish(POLICY)
    assert await mta_sts().policy("example.test") == ENFORCED
    assert await kept(database) == ("1", None, 0, None)


async def test_no_wait_is_longer_than_a_day(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, database: Database
) -> None:
    server.publish("", status="500 Oops")
    await mta_sts().policy("example.test")
    await database.execute("many", "UPDATE relaymail.mta_sts SET failures = 1000000, retry_at = now()")
    await mta_sts().policy("example.test")
    [(wait,)] = await database.query(
        "wait", "SELECT extract(epoch FROM retry_at - now())::int FROM relaymail.mta_sts"
    )
    assert 86_300 < wait <= 86_400


async def test_a_new_id_is_fetched_at_once_whatever_failed_before(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, zones: Zones, database: Database
) -> None:
    server.publish("", status="500 Oops")
    await mta_sts().policy("example.test")
    announce(zones, "2")
    await mta_sts().policy("example.test")
    assert len(server.requests) == 2
    assert (await kept(database))[1:3] == ("2", 1)
    announce(zones, "3")
    server.publish(POLICY)
    assert await mta_sts().policy("example.test") == ENFORCED


# In one process


async def test_an_answer_is_remembered_for_a_minute(
    mta_sts: Callable[..., MTASTS], dns_server: DNSServer, zones: Zones
) -> None:
    clock = Clock()
    host = mta_sts(clock=clock, remembered=REMEMBERED)
    for _ in range(3):
        assert await host.policy("example.test") == ENFORCED
    zones.forget("_mta-sts.other.test")
    for _ in range(3):
        assert await host.policy("other.test") is None
    assert dns_server.asked("_mta-sts.example.test", "TXT") == 1
    assert dns_server.asked("_mta-sts.other.test", "TXT") == 1
    clock.advance(REMEMBERED)
    await host.policy("example.test")
    assert dns_server.asked("_mta-sts.example.test", "TXT") == 2


async def test_many_who_ask_together_share_one_fetch(
    mta_sts: Callable[..., MTASTS], server: PolicyServer
) -> None:
    host = mta_sts()
    asking = [Deferred.fromCoroutine(host.policy("example.test")) for _ in range(20)]
    assert await gatherResults(asking) == [ENFORCED] * 20
    assert len(server.requests) == 1


async def test_who_gives_up_does_not_end_it_for_the_others(
    mta_sts: Callable[..., MTASTS], server: PolicyServer
) -> None:
    server.respond = list
    host = mta_sts()
    first, second = (Deferred.fromCoroutine(host.policy("example.test")) for _ in range(2))
    await until(reactor, lambda: bool(server.requests))
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    [connection] = server.open
    connection.transport.write(answer(POLICY))
    assert await second == ENFORCED


async def test_stopping_ends_what_is_under_way(mta_sts: Callable[..., MTASTS], server: PolicyServer) -> None:
    server.respond = list
    host = mta_sts()
    asking = Deferred.fromCoroutine(host.policy("example.test"))
    await until(reactor, lambda: bool(server.requests))
    host.stop()
    with pytest.raises(CancelledError):
        await asking
    await until(reactor, lambda: not server.open)


# The database


async def test_without_the_database_nobody_knows_whether_there_is_a_policy(
    resolver: Resolver, database: Database, server: PolicyServer
) -> None:
    await database.execute("lose", "DROP TABLE relaymail.mta_sts")
    host = MTASTS(resolver, database, _never, clock=Clock())
    with pytest.raises(DatabaseError):
        await host.policy("example.test")


async def test_a_policy_that_cannot_be_kept_counts_for_this_mail(
    mta_sts: Callable[..., MTASTS], database: Database
) -> None:
    await database.execute("refuse", "ALTER TABLE relaymail.mta_sts ADD CHECK (policy IS NULL)")
    assert await mta_sts().policy("example.test") == ENFORCED


async def test_a_kept_policy_that_cannot_be_read_is_fetched_again(
    mta_sts: Callable[..., MTASTS], server: PolicyServer, database: Database
) -> None:
    await mta_sts().policy("example.test")
    await database.execute("damage", "UPDATE relaymail.mta_sts SET policy = 'version: STSv9'")
    assert await mta_sts().policy("example.test") == ENFORCED
    assert len(server.requests) == 2


async def _never(domain: str) -> str:
    raise AssertionError("nothing is to be fetched")
