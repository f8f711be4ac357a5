"""The DNS server of the tests, in its thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaymail.dns import MX, DNSFailure, NoSuchDomain, Resolver
from tests.conftest import reactor
from tests.support.dns_server import Entry, ThreadedDNSServer
from tests.support.ipv6 import IPV6_LOOPBACK


@pytest.fixture(params=["127.0.0.1", IPV6_LOOPBACK])
def threaded(request: pytest.FixtureRequest) -> Iterator[ThreadedDNSServer]:
    server = ThreadedDNSServer(interface=request.param)
    server.start()
    yield server
    server.stop()


async def test_it_answers_from_its_thread_over_both_transports(threaded: ThreadedDNSServer) -> None:
    resolver = Resolver([threaded.address], reactor=reactor, timeout=30)
    threaded.zones.mx("example.test", "10 a.test", signed=True)
    assert await resolver.mx("example.test") == [MX(10, "a.test")]
    threaded.zones.set("example.test", "MX", "20 b.test.", truncated=True, delay=0.05)
    assert await resolver.mx("example.test") == [MX(20, "b.test")]
    assert ("tcp", "example.test", "MX") in threaded.queries
    with pytest.raises(NoSuchDomain):
        await resolver.mx("nowhere.test")


async def test_it_is_silent_where_told_to_be(threaded: ThreadedDNSServer) -> None:
    resolver = Resolver([threaded.address], reactor=reactor, timeout=0.2)
    threaded.zones.fallback = Entry(silent=True)
    with pytest.raises(DNSFailure) as caught:
        await resolver.mx("example.test")
    assert caught.value.kind == "timeout"
