"""What tests of the doctor share: an installation made of variables, a DNS of its own, services."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from relaymail.doctor import Check, Context, Outcome, Severity, State, run_checks
from relaymail.doctor.catalogue import BY_ID
from relaymail.settings import ConnectionString, examine
from relaymail.smtp import reply
from tests.conftest import reactor, run_on_reactor
from tests.support.dns_server import DNSServer, Zones

NOT_READY = reply.NOT_READY.data
"""How our host greets without a database."""


class Installation:
    """Settings as a host would be given them, and the checks on them."""

    def __init__(self, folder: Path) -> None:
        self.environ: dict[str, str] = {
            "Data__Directory": str(folder / "data"),
            # A port that nobody listens on, so that nothing of this machine is asked
            "Api__BaseUrl": "http://127.0.0.1:9",
            "Dns__Servers__0": "127.0.0.1:9",
            "Smtp__Port": "0",
            "Smtp__SecurePort": "0",
            "HealthCheck__Url": "http://localhost:0",
            "Smtp__BindAddresses__0": "127.0.0.1",
        }
        self.demo = False
        self.now: Callable[[], float] = time.time
        self.options: dict[str, Any] = {}

    def set(self, values: Mapping[str, object] | None = None, **more: object) -> None:
        """Give settings."""
        self.environ.update({key: str(value) for key, value in {**(values or {}), **more}.items()})

    def database(self, parameters: Mapping[str, str]) -> None:
        """Name the database."""
        self.set(ConnectionStrings__DefaultConnection=ConnectionString(parameters).url())

    def hosted(self, *domains: str, name: str = "mail.example.test") -> None:
        """Take mail for domains, and send some."""
        self.set(Smtp__Mx__Enabled="true", Smtp__Mx__Port="0", Smtp__ServerName=name)
        self.set({f"Smtp__Mx__HostedDomains__{n}": domain for n, domain in enumerate(domains)})

    def context(self) -> Context:
        """What a check is given."""
        return Context(
            examine(None, self.environ, demo=self.demo),
            reactor=reactor,
            demo=self.demo,
            now=self.now,
            **self.options,
        )

    async def run(self, *checks: str | Check) -> list[Outcome]:
        """What these checks find."""
        context = self.context()
        try:
            return await run_checks([BY_ID[c] if isinstance(c, str) else c for c in checks], context)
        finally:
            await context.close()

    async def look(self, check: str) -> Outcome:
        """What one check finds."""
        (outcome,) = await self.run(check)
        return outcome


def is_well(outcome: Outcome) -> bool:
    """Whether a check passed."""
    return outcome.finding.state is State.PASS


def is_skipped(outcome: Outcome, why: str) -> bool:
    """Whether a check was left out for the reason that has ``why`` in it."""
    return outcome.finding.state is State.SKIP and why in outcome.finding.summary


def failed_with(outcome: Outcome, severity: Severity, *texts: str) -> bool:
    """Whether a check failed with this severity, and told all of ``texts``."""
    finding = outcome.finding
    told = "\n".join((finding.summary, *finding.details, *finding.publish))
    return outcome.severity is severity and all(text in told for text in texts)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@pytest.fixture
def zones(installation: Installation) -> Iterator[Zones]:
    """The DNS that the installation asks."""
    server = DNSServer(reactor)

    async def start() -> None:
        server.start()

    run_on_reactor(start())
    installation.set(Dns__Servers__0=server.address)
    yield server.zones
    run_on_reactor(server.stop())


class _Says(Protocol):
    transport: Any

    def __init__(self, text: bytes) -> None:
        self._text = text

    def connectionMade(self) -> None:
        if self._text:
            self.transport.write(self._text)


@asynccontextmanager
async def service(text: bytes = b"") -> AsyncIterator[int]:
    """A service on a loopback port that says ``text`` to whoever connects, and nothing more."""
    factory: Factory[_Says] = Factory.forProtocol(lambda: _Says(text))
    factory.noisy = False
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()
