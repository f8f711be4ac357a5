"""Ports: free, ours, or another service's; what the running host says of itself."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator

import pytest

from relaymail.doctor import Severity
from relaymail.doctor.listeners import Listener, Seen
from tests.doctor.conftest import NOT_READY, Installation, failed_with, is_skipped, is_well, service
from tests.support.ports import free_port

PORTS = "check.ports.listeners"
POSTFIX = b"220 mx.example.test ESMTP Postfix (Debian/GNU)\r\n"


def health(body: object, status: str = "200 OK") -> bytes:
    text = json.dumps(body) if not isinstance(body, str) else body
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n{text}".encode()


LIVE = health({"status": "Healthy", "totalDuration": 0, "checks": []})


async def test_no_port_is_wanted(installation: Installation) -> None:
    assert is_skipped(await installation.look(PORTS), "no listener has a port")


async def test_ports_that_are_free(installation: Installation) -> None:
    installation.set(Smtp__Port=free_port(), HealthCheck__Url=f"http://localhost:{free_port()}")
    outcome = await installation.look(PORTS)
    assert is_well(outcome)
    assert outcome.finding.data["ports"] == {"submission": "free", "health": "free"}


async def test_another_mail_server_has_the_port(installation: Installation) -> None:
    async with service(POSTFIX) as port:
        installation.set(Smtp__Port=port)
        outcome = await installation.look(PORTS)
    assert failed_with(
        outcome,
        Severity.ERROR,
        f"Another service has submission port {port}",
        f"process {os.getpid()}",
        "ESMTP Postfix",
        "Smtp:Port",
    )


async def test_another_web_server_has_the_health_port(installation: Installation) -> None:
    async with service(health("<h1>It works!</h1>")) as port:
        installation.set(HealthCheck__Url=f"http://127.0.0.1:{port}")
        outcome = await installation.look(PORTS)
    assert failed_with(outcome, Severity.ERROR, f"Another service has health port {port}", "200 OK")


async def test_a_service_without_tls_on_the_port_of_smtps(installation: Installation) -> None:
    async with service(POSTFIX) as port:
        installation.set(Smtp__SecurePort=port, Data__EmbeddedPostgres="true")
        outcome = await installation.look(PORTS)
    assert failed_with(outcome, Severity.ERROR, f"Another service has submissions port {port}", "no TLS")


async def test_a_service_that_says_nothing(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.doctor.listeners.PATIENCE", 0.3)
    async with service() as port:
        installation.set(Smtp__Port=port)
        outcome = await installation.look(PORTS)
    assert failed_with(outcome, Severity.ERROR, "says nothing", "no answer within")


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is bound, and that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_a_port_that_cannot_be_had(installation: Installation, taken: int) -> None:
    installation.set(Smtp__Port=taken)
    assert failed_with(
        await installation.look(PORTS), Severity.ERROR, "cannot be had: Address already in use"
    )


async def test_an_address_that_is_not_on_this_machine(installation: Installation) -> None:
    installation.set(Smtp__Port=free_port(), Smtp__BindAddresses__0="192.0.2.1")
    outcome = await installation.look(PORTS)
    assert failed_with(outcome, Severity.ERROR, "cannot be had")


async def test_the_host_sends_clients_away(installation: Installation) -> None:
    async with service(NOT_READY) as port:
        installation.set(Smtp__Port=port)
        outcome = await installation.look(PORTS)
    assert failed_with(outcome, Severity.ERROR, "sends clients away", "421 4.3.2")


async def test_the_host_misses_one_of_its_ports(installation: Installation) -> None:
    async with service(LIVE) as port:
        free = free_port()
        installation.set(Smtp__Port=free, HealthCheck__Url=f"http://localhost:{port}")
        outcome = await installation.look(PORTS)
    assert failed_with(
        outcome,
        Severity.ERROR,
        f"submission port {free} (Smtp:Port): the host runs, but does not listen here",
    )


async def test_another_relaymail_has_the_port(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.doctor.listeners.PATIENCE", 1.0)
    async with service(b"220 other.example.test ESMTP relaymail\r\n") as port:
        installation.set(Smtp__Port=port, Smtp__ServerName="mail.example.test")
        outcome = await installation.look(PORTS)
    assert failed_with(outcome, Severity.WARN, "not as mail.example.test", "greets as other.example.test")


async def test_low_ports_that_this_user_may_not_have(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(listener: Listener) -> Seen:
        return Seen(listener, "denied", "Permission denied")

    monkeypatch.setattr("relaymail.doctor.context.look_at", denied)
    installation.set(Smtp__Port=587)
    outcome = await installation.look(PORTS)
    assert is_well(outcome)
    assert "check.system.privileges" in outcome.finding.summary


async def test_no_running_host_to_ask(installation: Installation) -> None:
    assert is_skipped(await installation.look("check.host.health"), "the host does not run")


REPORT = {
    "totalDuration": 1,
    "checks": [
        {"name": "database", "status": "Unhealthy", "description": "PostgreSQL cannot be reached"},
        {"name": "smtp", "status": "Healthy", "description": None},
    ],
}


@pytest.mark.parametrize(
    ("status", "code", "severity"),
    [
        ("Healthy", "200 OK", None),
        ("Degraded", "200 OK", Severity.WARN),
        ("Unhealthy", "503 Service Unavailable", Severity.ERROR),
    ],
)
async def test_what_the_running_host_says(
    installation: Installation, status: str, code: str, severity: Severity | None
) -> None:
    async with service(health({"status": status, **REPORT}, code)) as port:
        installation.set(HealthCheck__Url=f"http://localhost:{port}")
        outcome = await installation.look("check.host.health")
    assert outcome.severity is severity
    assert severity is None or failed_with(
        outcome, severity, "database: Unhealthy: PostgreSQL cannot be reached"
    )
