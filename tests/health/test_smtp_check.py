"""The check of the submission port, against listeners that greet, refuse, babble and say nothing."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.health import Result, Status
from relaymail.health.checks import smtp_check
from relaymail.smtp.probe import ProbeRegistry
from tests.conftest import reactor
from tests.health.support import Listen, Listener
from tests.support.ipv6 import IPV6_LOOPBACK, needs_ipv6
from tests.support.waiting import pause, until


async def run(listener: Listener, probes: ProbeRegistry | None = None, limit: float = 60.0) -> Result:
    check = smtp_check(
        lambda: listener.address, probes=probes or ProbeRegistry(), reactor=reactor, limit=limit
    )
    assert (check.name, check.tags) == ("smtp", ("protocol",))
    return await check.run()


@pytest.mark.parametrize(
    "greeting",
    [
        b"220 mail.example.test ESMTP relaymail\r\n",
        b"220-mail.example.test ESMTP\r\n220-be patient\r\n220 go on\r\n",
        b"220\r\n",
        b"220 bare line end\n",
    ],
)
@pytest.mark.parametrize("interface", ["127.0.0.1", IPV6_LOOPBACK])
async def test_a_server_that_greets_is_healthy(listen: Listen, greeting: bytes, interface: str) -> None:
    listener = listen(greeting, interface)
    result = await run(listener)
    assert result == Result(
        Status.HEALTHY, f"SMTP server accepting connections on port {listener.address[1]}"
    )
    assert listener.received == [b"QUIT\r\n"]
    await until(reactor, lambda: listener.lost == 1)


@pytest.mark.parametrize(
    ("network", "first"), [("127.0.0.0/8", [b"PROXY UNKNOWN\r\n"]), ("192.0.2.0/24", [])]
)
async def test_a_server_that_wants_a_proxy_header_gets_one(
    listen: Listen, network: str, first: list[bytes]
) -> None:
    listener = listen(b"220 hello\r\n")
    proxies = (ip_network(network),)
    check = smtp_check(lambda: listener.address, probes=ProbeRegistry(), reactor=reactor, proxies=proxies)
    assert (await check.run()).status is Status.HEALTHY
    assert b"".join(listener.received) == b"".join([*first, b"QUIT\r\n"])


@pytest.mark.parametrize(
    ("greeting", "shown"),
    [
        (b"554 5.3.2 No service\r\n", "554 5.3.2 No service"),
        (b"421-4.3.2 one\r\n421 4.3.2 two\r\n", "421-4.3.2 one"),
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"2200 strange\r\n", "2200 strange"),
        (b"554 \x1b[31mred\x00\xff\r\n", "554 \\x1b[31mred\\x00\N{REPLACEMENT CHARACTER}"),
        (b"5" * 300 + b"\r\n", "5" * 100 + "…"),
        (b"\x00" * 10_000, "\\x00" * 25 + "…"),
    ],
)
async def test_another_greeting_is_unhealthy_and_shown_safely(
    listen: Listen, greeting: bytes, shown: str
) -> None:
    listener = listen(greeting)
    result = await run(listener)
    port = listener.address[1]
    assert result == Result(
        Status.UNHEALTHY, f"SMTP server on port {port} returned unexpected greeting: {shown}"
    )


async def test_a_refused_connection_is_told_as_such() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
        check = smtp_check(lambda: address, probes=ProbeRegistry(), reactor=reactor)
        result = await check.run()
    assert result == Result(Status.UNHEALTHY, f"SMTP server on port {address[1]} refused the connection")


async def test_silence_is_told_as_a_timeout(listen: Listen) -> None:
    listener = listen(None)
    result = await run(listener, limit=0.2)
    port = listener.address[1]
    assert result == Result(
        Status.UNHEALTHY, f"SMTP server on port {port} timed out: no greeting within 0.2 s"
    )
    await until(reactor, lambda: listener.lost == 1)


async def test_half_a_greeting_is_a_timeout_too(listen: Listen) -> None:
    result = await run(listen(b"220-more will follow\r\n"), limit=0.2)
    assert "timed out" in str(result.description)


async def test_a_full_backlog_is_a_timeout() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        check = smtp_check(full.getsockname, probes=ProbeRegistry(), reactor=reactor, limit=0.3)
        result = await check.run()
    port = check_port(result)
    assert result.description == f"SMTP server on port {port} timed out: no connection within 0.3 s"


def check_port(result: Result) -> str:
    return str(result.description).split(" timed out", maxsplit=1)[0].rpartition(" ")[2]


async def test_a_connection_closed_without_a_greeting_is_told_as_such(listen: Listen) -> None:
    listener = listen(None, close=True)
    result = await run(listener)
    port = listener.address[1]
    assert result == Result(
        Status.UNHEALTHY, f"SMTP server on port {port} closed the connection without a greeting"
    )


async def test_a_port_that_is_not_open_is_unhealthy() -> None:
    check = smtp_check(lambda: None, probes=ProbeRegistry(), reactor=reactor)
    assert await check.run() == Result(Status.UNHEALTHY, "SMTP server is not listening")


@pytest.mark.parametrize(
    ("bound", "reached"), [("0.0.0.0", "127.0.0.1"), pytest.param("::", "::1", marks=needs_ipv6)]
)
async def test_a_wildcard_is_reached_over_loopback(listen: Listen, bound: str, reached: str) -> None:
    listener = listen(b"220 hello\r\n", reached)
    listener.address = (bound, listener.address[1])
    assert (await run(listener)).status is Status.HEALTHY


async def test_the_probe_is_announced_by_its_own_address(listen: Listen) -> None:
    probes = ProbeRegistry()
    listener = listen(b"220 hello\r\n")
    await run(listener, probes)
    [client] = listener.clients
    assert probes.take(client)
    assert not probes.take(client)


async def test_a_probe_that_another_service_got_is_forgotten(
    listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.health.checks.smtp.FORGOTTEN", 0.02)
    probes = ProbeRegistry()
    listener = listen(b"HTTP/1.1 400 Bad Request\r\n")
    assert (await run(listener, probes)).status is Status.UNHEALTHY
    await pause(reactor, 0.05)
    [client] = listener.clients
    assert not probes.take(client)


async def test_a_server_that_does_not_close_behind_quit_is_left(listen: Listen) -> None:
    listener = listen(b"220 hello\r\n")
    listener.deaf = True
    assert (await run(listener)).status is Status.HEALTHY
    await until(reactor, lambda: listener.lost == 1)


async def test_a_cancelled_check_closes_its_connection(listen: Listen) -> None:
    listener = listen(None)
    running = Deferred.fromCoroutine(run(listener))
    await until(reactor, lambda: bool(listener.clients))
    running.cancel()
    with pytest.raises(CancelledError):
        await running
    await until(reactor, lambda: listener.lost == 1)
