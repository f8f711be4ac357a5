"""Connections to others: a client's SMTP server, other mail hosts, the API."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from relaymail.doctor import Severity
from relaymail.doctor.connect import connect
from tests.conftest import reactor, run_on_reactor
from tests.doctor.conftest import Installation, failed_with, is_skipped, is_well, service
from tests.notify.api import Api, silence, status
from tests.support.dns_server import Zones
from tests.support.ports import free_port

SMTP = "check.integration.smtp"
OUT = "check.outbound.port25"


@pytest.fixture
def full() -> Iterator[int]:
    """A port whose queue of connections is full: the kernel does not answer one more."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        time.sleep(0.05)
        yield listening.getsockname()[1]
        for one in waiting:
            one.close()


# The client's server


async def test_no_server_is_configured(installation: Installation) -> None:
    assert is_skipped(
        await installation.look(SMTP), "Smtp:Host, Email:Smtp:Host and Notify:Email:Host are not set"
    )


@pytest.mark.parametrize("section", ["Smtp", "Email__Smtp", "Notify__Email"])
async def test_a_server_that_accepts_connections(installation: Installation, section: str) -> None:
    async with service() as port:
        installation.set(
            {
                f"{section}__Host": "127.0.0.1",
                f"{section}__Port": port,
                f"{section}__UseSsl": "true",
                f"{section}__Username": "u",
                f"{section}__Password": "hush",
            }
        )
        outcome = await installation.look(SMTP)
    assert is_well(outcome)
    assert outcome.finding.data == {
        "host": "127.0.0.1",
        "port": port,
        "source": f"{section.replace('__', ':')}:Host",
    }
    warnings = installation.context().examined.loaded.warnings
    assert [text for text in warnings if "no listener opens" not in text] == []


async def test_the_first_section_counts_and_brings_its_own_port(installation: Installation) -> None:
    async with service() as port:
        installation.set(
            Email__Smtp__Host="127.0.0.1",
            Email__Smtp__Port=port,
            Notify__Email__Host="127.0.0.1",
            Notify__Email__Port=free_port(),
        )
        assert is_well(await installation.look(SMTP))
        installation.set(Smtp__Host="127.0.0.1", Smtp__Port=free_port())
        assert failed_with(await installation.look(SMTP), Severity.WARN, "from Smtp:Host")
        installation.set(Smtp__Host=" ")
        assert is_well(await installation.look(SMTP))


async def test_the_port_is_that_of_submission_by_default(installation: Installation) -> None:
    installation.set(Notify__Email__Host="127.0.0.1", Notify__Email__Port="")
    assert (await installation.look(SMTP)).finding.data["port"] == 587


async def test_a_refusal(installation: Installation) -> None:
    installation.set(Email__Smtp__Host="127.0.0.1", Email__Smtp__Port=free_port())
    outcome = await installation.look(SMTP)
    assert failed_with(outcome, Severity.WARN, "refused the connection")
    assert outcome.finding.data["failure"] == "refused"


async def test_a_name_that_does_not_resolve(installation: Installation) -> None:
    installation.set(Email__Smtp__Host="mail.invalid")
    outcome = await installation.look(SMTP)
    assert failed_with(outcome, Severity.WARN, "does not resolve")
    assert outcome.finding.data["failure"] == "dns"


async def test_a_timeout(installation: Installation, full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymail.doctor.checks.integration_smtp.LIMIT", 0.5)
    installation.set(Email__Smtp__Host="127.0.0.1", Email__Smtp__Port=full)
    outcome = await installation.look(SMTP)
    assert failed_with(outcome, Severity.WARN, "timed out", "no connection within 0.5 s")
    assert outcome.finding.data["failure"] == "timeout"


async def test_a_resolver_that_hangs_is_a_timeout_too(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()

    def hang(*_: object) -> list[object]:
        given_up.wait()
        return []

    monkeypatch.setattr("relaymail.doctor.resolution.socket.getaddrinfo", hang)
    tried = await connect(reactor, "mail.example.test", 25, limit=0.2)
    given_up.set()
    assert tried.how == "timeout"


async def test_a_socket_error(installation: Installation) -> None:
    # A broadcast address cannot be connected to
    installation.set(Email__Smtp__Host="255.255.255.255")
    outcome = await installation.look(SMTP)
    assert outcome.finding.data["failure"] == "socket"
    unreachable = {os.strerror(number) for number in (errno.ENETUNREACH, errno.EACCES, errno.EINVAL)}
    assert failed_with(outcome, Severity.WARN, "socket error")
    assert any(text in outcome.finding.details[1] for text in unreachable), outcome.finding


@pytest.mark.parametrize("port", ["many", "0", "65536", "-1", "9" * 400])
async def test_a_port_that_is_none(installation: Installation, port: str) -> None:
    installation.set(Email__Smtp__Host="127.0.0.1", Email__Smtp__Port=port)
    assert failed_with(await installation.look(SMTP), Severity.WARN, "Email:Smtp:Port is not a port")


async def test_a_host_that_is_no_name(installation: Installation) -> None:
    installation.set(Email__Smtp__Host="..\N{SNOWMAN}..")
    assert failed_with(await installation.look(SMTP), Severity.WARN, "does not resolve")


# Other mail hosts


@pytest.fixture
def sender(installation: Installation) -> Installation:
    installation.set(Smtp__ServerName="mail.example.test")
    return installation


async def test_no_mail_is_sent(installation: Installation) -> None:
    assert is_skipped(await installation.look(OUT), "localhost is no full domain name")
    installation.set(OutboundMail__Enabled="false")
    assert is_skipped(await installation.look(OUT), "OutboundMail:Enabled is false")


async def test_a_target_that_greets(sender: Installation) -> None:
    async with service(b"220 mx.example.net ESMTP\r\n") as port:
        sender.set(Doctor__OutboundTarget=f"127.0.0.1:{port}")
        assert is_well(await sender.look(OUT))


async def test_a_blocked_port(sender: Installation, full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymail.doctor.checks.outbound_port25.CONNECT_LIMIT", 0.5)
    sender.set(Doctor__OutboundTarget=f"127.0.0.1:{full}")
    outcome = await sender.look(OUT)
    assert failed_with(outcome, Severity.ERROR, f"No connection to 127.0.0.1 port {full}")
    assert outcome.finding.data["how"] == "timeout"


async def test_a_target_that_refuses_us(sender: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymail.doctor.checks.outbound_port25.GREETING_LIMIT", 0.3)
    for said, told in ((b"554 5.7.1 you are listed\r\n", "does not want us"), (b"", "does not greet")):
        async with service(said) as port:
            sender.set(Doctor__OutboundTarget=f"127.0.0.1:{port}")
            assert failed_with(await sender.look(OUT), Severity.WARN, told)


async def test_the_smarthost_is_tried(sender: Installation) -> None:
    sender.set(OutboundMail__RelayHost="127.0.0.1", OutboundMail__RelayPort=free_port())
    assert failed_with(await sender.look(OUT), Severity.ERROR, "No connection to 127.0.0.1")


async def test_else_the_mx_of_a_large_receiver(sender: Installation, zones: Zones) -> None:
    zones.mx("gmail.com", "5 localhost")
    async with service(b"220 mx.example.net ESMTP\r\n") as port:
        sender.set(OutboundMail__Port=port)
        assert is_well(await sender.look(OUT))
    zones.mx("gmail.com")
    zones.set("gmail.com", "MX")
    assert is_skipped(await sender.look(OUT), "gmail.com has no MX")
    zones.fail("gmail.com", "MX")
    assert is_skipped(await sender.look(OUT), "check.dns.resolver")


# The API


@pytest.fixture
def api(installation: Installation) -> Iterator[Api]:
    async def start() -> Api:
        return Api()

    server: Api = run_on_reactor(start())
    installation.set(Api__BaseUrl=server.url, Internal__ApiKey="hush-key")
    yield server
    run_on_reactor(server.stop())


async def test_an_api_that_takes_notifications(installation: Installation, api: Api) -> None:
    outcomes = await installation.run("check.api.reachable", "check.api.key")
    assert [is_well(outcome) for outcome in outcomes] == [True, True]
    (request,) = api.requests
    assert request.headers[b"Authorization"] == [b"ApiKey hush-key"]
    assert json.loads(request.body)["userIds"] == []
    assert "hush" not in repr([outcome.finding for outcome in outcomes])


@pytest.mark.parametrize("code", [400, 422])
async def test_an_api_that_wants_no_notification_for_nobody_has_taken_the_key(
    installation: Installation, api: Api, code: int
) -> None:
    api.answer = status(code)
    outcomes = await installation.run("check.api.reachable", "check.api.key")
    assert [is_well(outcome) for outcome in outcomes] == [True, True]


@pytest.mark.parametrize("code", [401, 403])
async def test_a_key_that_is_refused(installation: Installation, api: Api, code: int) -> None:
    api.answer = status(code)
    reachable, key = await installation.run("check.api.reachable", "check.api.key")
    assert is_well(reachable)
    assert failed_with(key, Severity.WARN, "refuses the key", f"HTTP {code}", "not the one the API has")
    installation.set(Internal__ApiKey="")
    assert failed_with(await installation.look("check.api.key"), Severity.WARN, "is not set")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (404, "is not the API"),
        (301, "is not the API"),
        (500, "answers with an error"),
        (503, "with an error"),
    ],
)
async def test_an_api_that_is_none_or_unwell(
    installation: Installation, api: Api, code: int, told: str
) -> None:
    api.answer = status(code, Location="http://elsewhere.example.test/")
    reachable, key = await installation.run("check.api.reachable", "check.api.key")
    assert failed_with(reachable, Severity.WARN, told)
    assert is_skipped(key, "check.api.reachable")


async def test_an_api_that_is_not_there(installation: Installation) -> None:
    installation.set(Api__BaseUrl=f"http://127.0.0.1:{free_port()}")
    outcome = await installation.look("check.api.reachable")
    assert failed_with(outcome, Severity.WARN, "does not answer", "connection refused")


async def test_an_api_that_hangs(
    installation: Installation, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.doctor.api_probe.LIMIT", 0.5)
    api.answer = silence
    outcome = await installation.look("check.api.reachable")
    assert failed_with(outcome, Severity.WARN, "no answer within 0.5 s")
