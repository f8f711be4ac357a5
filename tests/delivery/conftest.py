"""A DNS server with zones for each test, and a resolver that believes its AD bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaymail.dns import Resolver
from tests.conftest import reactor, run_on_reactor
from tests.support.dns_server import DNSServer, Zones


@pytest.fixture
def dns_server() -> Iterator[DNSServer]:
    """A started server that knows nothing yet."""
    server = DNSServer(reactor)
    server.start()
    yield server
    run_on_reactor(server.stop())


@pytest.fixture
def zones(dns_server: DNSServer) -> Zones:
    """What the server knows; may be changed at any time."""
    return dns_server.zones


@pytest.fixture
def resolver(dns_server: DNSServer) -> Resolver:
    """Asks ``dns_server``."""
    return Resolver([dns_server.address], reactor=reactor, timeout=30)


@pytest.fixture
def impatient(dns_server: DNSServer) -> Resolver:
    """Does not ask it for longer than two seconds: for tests in which it is silent."""
    return Resolver([dns_server.address], reactor=reactor, timeout=2)
