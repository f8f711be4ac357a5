"""A DNS server and a resolver that asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from relaymail.dns import Resolver
from tests.conftest import reactor, run_on_reactor
from tests.dns.server import DNSServer


@pytest.fixture
def dns_servers() -> Iterator[Callable[[], DNSServer]]:
    """Makes started servers; they end with the test."""
    made: list[DNSServer] = []

    def make(interface: str = "127.0.0.1") -> DNSServer:
        server = DNSServer(reactor, interface=interface)
        server.start()
        made.append(server)
        return server

    yield make
    for server in made:
        run_on_reactor(server.stop())


@pytest.fixture
def dns_server(dns_servers: Callable[[], DNSServer]) -> DNSServer:
    """A started server that is silent until told what to do."""
    return dns_servers()


@pytest.fixture
def resolver(dns_server: DNSServer) -> Resolver:
    """Asks ``dns_server``, for long enough."""
    return Resolver([dns_server.address], reactor=reactor, timeout=30)
