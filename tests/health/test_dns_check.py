"""The check of DNS, against a real server."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from relaymail.dns import Resolver
from relaymail.health import HealthCheck, HealthMonitor, Result, Status
from relaymail.health.checks import dns_mx_check
from tests.conftest import reactor
from tests.dns.server import DNSServer, answer, code


@pytest.fixture
def check(dns_server: DNSServer) -> HealthCheck:
    """Asks ``dns_server`` for gmail.com."""
    return dns_mx_check(Resolver([dns_server.address], reactor=reactor), "gmail.com")


async def test_the_first_three_by_preference_are_shown(dns_server: DNSServer, check: HealthCheck) -> None:
    dns_server.behaviour = answer("40 d.test.", "5 a.test.", "20 c.test.", "10 b.test.")
    assert (check.name, check.tags) == ("dns-mx", ("smtp",))
    assert await check.run() == Result(
        Status.HEALTHY,
        "DNS MX resolution working (gmail.com -> a.test, b.test, c.test)",
        {"testDomain": "gmail.com", "mxRecordCount": 4},
    )
    assert dns_server.queries == [("udp", "gmail.com.", "MX")]


@pytest.mark.parametrize(
    ("denial", "says"), [(code("NXDOMAIN"), "does not exist"), (answer(), "no MX records")]
)
async def test_without_records_dns_works_and_it_is_degraded(
    dns_server: DNSServer, check: HealthCheck, denial: object, says: str
) -> None:
    dns_server.behaviour = denial  # type: ignore[assignment]
    result = await check.run()
    assert result.status is Status.DEGRADED
    assert says in str(result.description)
    assert result.data == {"testDomain": "gmail.com", "mxRecordCount": 0}


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED"])
async def test_a_failed_query_is_unhealthy(dns_server: DNSServer, check: HealthCheck, rcode: str) -> None:
    dns_server.behaviour = code(rcode)
    assert await check.run() == Result(Status.UNHEALTHY, f"DNS MX resolution failed (gmail.com: {rcode})")


async def test_a_black_hole_is_unhealthy_and_said_to_be_one(
    check: HealthCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.health.checks.dns_mx.LIMIT", 0.3)
    assert await check.run() == Result(Status.UNHEALTHY, "DNS MX resolution failed (gmail.com: timed out)")


async def test_the_cache_is_not_believed(dns_server: DNSServer, check: HealthCheck) -> None:
    dns_server.behaviour = answer("5 a.test.", ttl=3600)
    assert (await check.run()).status is Status.HEALTHY
    dns_server.behaviour = code("SERVFAIL")
    assert (await check.run()).status is Status.UNHEALTHY


async def test_many_who_ask_at_once_are_one_query(dns_server: DNSServer, check: HealthCheck) -> None:
    dns_server.behaviour = answer("5 a.test.")
    monitor = HealthMonitor([check], ready=["dns-mx"], clock=reactor)
    asked = [Deferred.fromCoroutine(monitor.full()) for _ in range(20)]
    for waiting in asked:
        assert (await waiting).status is Status.HEALTHY
    await monitor.ready()
    assert len(dns_server.queries) == 1
