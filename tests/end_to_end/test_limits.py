"""Limits on clients, as a proxy of ours tells them apart, over a whole host."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host
from tests.end_to_end.mail import message
from tests.end_to_end.wire import Answer, Closed, Wire
from tests.support.polling import until

PROXY = "127.0.0.2"
RECIPIENT = "demo@example.test"

_clients = count(1)


@pytest.fixture(scope="module")
def proxied() -> Iterator[Host]:
    """A host behind a proxy, which is at 127.0.0.2, and with low limits."""
    with TemporaryDirectory(prefix="relaymail-e2e-") as folder:
        host = Host(
            Path(folder),
            {
                "Smtp__ProxyNetworks__0": f"{PROXY}/32",
                "Smtp__XclientNetworks__0": f"{PROXY}/32",
                "Smtp__Limits__ConnectionsPerClient__Mx": "2",
                "Smtp__Limits__ConnectionsPerClient__Submission": "3",
                "Smtp__Limits__ConnectionsPerMinute": "6",
                "Smtp__Limits__MessagesPerMinute": "3",
                "Smtp__Limits__RecipientsPerMinute": "5",
            },
        )
        try:
            host.start()
            yield host
        finally:
            host.remove()


@pytest.fixture
def client() -> str:
    """A client that no other test has been."""
    return f"198.51.100.{next(_clients)}"


def connected(port: int, client: str) -> Wire:
    """A connection of ``client``, through the proxy; its greeting is read."""
    wire = Wire(port, source=PROXY, greet=False)
    family = "TCP6" if ":" in client else "TCP4"
    wire.send(f"PROXY {family} {client} {'::1' if ':' in client else '127.0.0.1'} 4321 25\r\n".encode())
    wire.greeting = wire.reply()
    return wire


def greeting(port: int, client: str) -> Answer:
    """What a client is greeted with."""
    with connected(port, client) as wire:
        assert wire.greeting is not None
        return wire.greeting


def greeted(host: Host, client: str) -> Wire:
    """A connection to the MX that is behind EHLO."""
    wire = connected(host.ports.mx, client)
    wire.hello()
    return wire


def test_one_client_has_so_many_connections_and_others_do_not_feel_it(proxied: Host, client: str) -> None:
    with greeted(proxied, client), greeted(proxied, client) as second:
        with connected(proxied.ports.mx, client) as third:
            assert third.greeting == (421, ("4.7.0 Too many connections from your address",))
            with pytest.raises(Closed):
                third.reply()
        assert greeting(proxied.ports.mx, "203.0.113.7").code == 220
        # What it has on one kind of listener is not counted on the other
        assert greeting(proxied.ports.submission, client).code == 220
        second.close()
        until(lambda: greeting(proxied.ports.mx, client).code == 220)
    assert f"refused {client}: too many connections of one client" in proxied.log


def test_both_submission_ports_count_together(proxied: Host, client: str) -> None:
    ports = proxied.ports
    wires = [connected(ports.submission, client) for _ in range(2)]
    implicit = Wire(ports.submissions, source=PROXY, greet=False)
    implicit.send(f"PROXY TCP4 {client} 127.0.0.1 4321 465\r\n".encode())
    implicit.wrap()
    assert implicit.reply().code == 220
    assert greeting(ports.submission, client).start == "421 4.7.0"
    for wire in [*wires, implicit]:
        wire.close()


def test_an_ipv6_client_is_its_64(proxied: Host) -> None:
    with greeted(proxied, "2001:db8:7::1"), greeted(proxied, "2001:db8:7::2"):
        assert greeting(proxied.ports.mx, "2001:db8:7:0:ffff::3").start == "421 4.7.0"
        assert greeting(proxied.ports.mx, "2001:db8:7:1::1").code == 220


def test_a_client_that_comes_too_often_is_told_how_long_to_wait(proxied: Host, client: str) -> None:
    answers: list[Answer] = []
    while len(answers) < 100 and (not answers or answers[-1].code == 220):
        with connected(proxied.ports.mx, client) as wire:
            assert wire.greeting is not None
            answers.append(wire.greeting)
            wire.send(b"QUIT\r\n")
            wire.rest()
    # More of them only where they took longer than the minute
    assert len(answers) >= 7
    code, (text,) = answers[-1]
    assert code == 421
    assert text.startswith("4.7.1 Too many connections from your address, try again in ")
    assert 0 < int(text.split()[-2]) <= 60


def test_messages_and_recipients_by_the_minute(proxied: Host, client: str) -> None:
    with greeted(proxied, client) as wire:
        for _ in range(3):
            assert wire.message(message(), "friend@example.org", RECIPIENT).code == 250
        answer = wire.command("MAIL FROM:<friend@example.org>")
        assert answer.start == "451 4.7.1"
        assert "Too many messages, try again in " in answer.text
    with greeted(proxied, "203.0.113.8") as wire:
        wire.command("MAIL FROM:<friend@example.org>")
        answers = [wire.command(f"RCPT TO:<postmaster+{n}@example.test>") for n in range(6)]
        assert [answer.code for answer in answers] == [550] * 5 + [451]
        assert "Too many recipients, try again in " in answers[-1].text
        # The session goes on
        assert wire.command("NOOP").code == 250
    assert f"refused {client}: too many messages in a minute" in proxied.log


def test_a_client_named_by_xclient_is_the_one_that_is_counted(proxied: Host, client: str) -> None:
    with greeted(proxied, client), greeted(proxied, client), greeted(proxied, PROXY) as wire:
        # The proxy of the PROXY header is 127.0.0.2 too, so that it may say XCLIENT
        assert wire.command(f"XCLIENT ADDR={client}").start == "421 4.7.0"
        with pytest.raises(Closed):
            wire.reply()
        assert open_connections(proxied, client) == 2


def test_loopback_is_exempt(proxied: Host) -> None:
    wires = [Wire(proxied.ports.mx, source="127.0.0.1") for _ in range(10)]
    for wire in wires:
        assert wire.greeting is not None
        assert wire.greeting.code == 220
    for _ in range(5):
        wires[0].hello()
        assert wires[0].message(message(), "friend@example.org", RECIPIENT).code == 250
    for wire in wires:
        wire.close()
    assert counted(proxied, "127.0.0.1") == []


def test_many_connections_are_no_more_guesses(proxied: Host) -> None:
    user = proxied.user()

    def guess(number: int) -> str:
        with Wire(proxied.ports.submission, source="127.0.3.1") as wire:
            wire.hello()
            wire.starttls()
            return wire.login(user.address, f"wrong {number}").start

    with ThreadPoolExecutor(20) as pool:
        answers = Counter(pool.map(guess, range(20)))
    assert 1 <= answers["535 5.7.8"] <= 5
    assert answers["421 4.7.0"] == 20 - answers["535 5.7.8"]


def test_the_operator_resets_a_client(proxied: Host, client: str) -> None:
    with greeted(proxied, client) as wire:
        for _ in range(3):
            assert wire.message(message(), "friend@example.org", RECIPIENT).code == 250
        assert wire.command("MAIL FROM:<friend@example.org>").code == 451
        (found,) = counted(proxied, client)
        assert (found["connections"], found["messages_per_minute"], found["refused"]) == (1, 3, 1)
        answer = proxied.cli("limits", "reset", client).decode()
        assert answer.endswith(f": {client} is forgotten.\n")
        assert wire.command("MAIL FROM:<friend@example.org>").code == 250


def test_the_health_check_passes_a_listener_that_wants_a_header_from_it(new_host: MakeHost) -> None:
    host = new_host({"Smtp__ProxyNetworks__0": "127.0.0.0/8"})
    host.start()
    until(lambda: host.health()["smtp"]["status"] == "Healthy")


def open_connections(host: Host, client: str) -> int:
    """Connections that a client has on the MX."""
    return sum(int(str(found["connections"])) for found in counted(host, client))


def counted(host: Host, client: str) -> list[dict[str, object]]:
    """What the host counts of a client on the MX."""
    (answer,) = json.loads(host.cli("limits", "show", "--json"))
    (mx,) = [listener for listener in answer["listeners"] if listener["listener"] == "mx"]
    return [found for found in mx["clients"] if found["client"] == client]
