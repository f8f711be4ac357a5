"""SMTP servers that misbehave, a DNS server, monitors that end with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import reactor, run_on_reactor
from tests.dns.server import DNSServer
from tests.health.support import Listen, Listener


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Makes listeners; they end with the test."""
    made: list[Listener] = []

    def make(greeting: bytes | None, interface: str = "127.0.0.1", close: bool = False) -> Listener:
        made.append(Listener(greeting, interface, close))
        return made[-1]

    yield make
    for listener in made:
        run_on_reactor(listener.stop())


@pytest.fixture
def dns_server() -> Iterator[DNSServer]:
    """A DNS server that is silent until told what to do."""
    server = DNSServer(reactor)
    server.start()
    yield server
    run_on_reactor(server.stop())
