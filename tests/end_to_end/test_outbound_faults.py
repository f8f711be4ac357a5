"""Outbound mail when something breaks: nothing is lost, and what may be a duplicate is said to be one."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.bench.queued import Fill, fill
from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host
from tests.end_to_end.mail import message
from tests.end_to_end.outbound import Internet, attempts, internet, until_state
from tests.support.polling import until
from tests.support.postgres import PostgresServer

DOMAINS = 10
EACH = int(os.environ.get("RELAYMAIL_TEST_MESSAGES", "600")) // DOMAINS
"""Messages to each for two hosts to share."""


@pytest.fixture
def net() -> Iterator[Internet]:
    """Name servers and next hosts of the test's own."""
    with internet() as made:
        yield made


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, to be restarted."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


def end_leases(host: Host) -> None:
    """What a killed host had is free again when its lease is over, two minutes later; have that now."""
    host.rows(
        "WITH ended AS (UPDATE relaymail.queue SET due_at = now() WHERE lease_token IS NOT NULL"
        " AND state = 'queued' RETURNING destination, priority)"
        " INSERT INTO relaymail.arrival SELECT DISTINCT destination, priority, now() FROM ended"
    )


def left(host: Host) -> int:
    """Recipients that are not delivered."""
    (count,) = host.row("SELECT count(*) FROM relaymail.queue WHERE state <> 'delivered'")
    return int(count)


def leased(host: Host) -> int:
    """Recipients that a host has claimed and not settled."""
    (count,) = host.row("SELECT count(*) FROM relaymail.queue WHERE lease_token IS NOT NULL")
    return int(count)


def workers(host: Host) -> int:
    """Hosts that took something from the queue."""
    (count,) = host.row("SELECT count(DISTINCT lease_owner) FROM relaymail.queue")
    return int(count)


def domains(net: Internet) -> list[str]:
    """Domains with a next host each."""
    names = [f"d{n}.test" for n in range(DOMAINS)]
    for name in names:
        net.sink(name)
    return names


def queue(host: Host, names: list[str], each: int) -> None:
    """Queue messages; the subject of each is the number within its domain."""
    fill(host.url, [Fill(name, each, 1000) for name in names])


def taken(net: Internet) -> Counter[str]:
    """How often each message was delivered."""
    return Counter(
        f"{recipient} {message.subject}"
        for sink in net.sinks
        for message in list(sink.taken)
        for recipient in message.recipients
    )


def test_a_worker_killed_between_dot_and_reply_leaves_it_in_doubt(new_host: MakeHost, net: Internet) -> None:
    sink = net.sink("elsewhere.test")
    host = new_host(net.settings)
    host.start()
    user = host.user()
    sink.dot.clear()
    message_id = host.submit(message("Subject: Once", sender=user.address), user, "a@elsewhere.test")
    until(lambda: len(sink.ended) == 1)
    host.kill()
    sink.dot.set()
    host.start()
    assert attempts(host, message_id) == [("running", "final-dot", None, False)]
    end_leases(host)
    until_state(host, message_id, "delivered")
    assert attempts(host, message_id) == [
        ("in doubt", "final-dot", None, False),
        ("delivered", "final-dot", "2.0.0", True),
    ]
    assert len(sink.ended) == 2


@pytest.mark.parametrize(
    ("point", "copies"),
    [("delivery-before-dot", 1), ("delivery-after-dot", 2), ("delivery-before-settle", 2)],
)
def test_a_crash_at_any_point_loses_nothing(
    new_host: MakeHost, net: Internet, point: str, copies: int
) -> None:
    sink = net.sink("elsewhere.test")
    host = new_host(net.settings | {"Debug__CrashPoint": point})
    host.start()
    user = host.user()
    if point == "delivery-after-dot":
        sink.dot.clear()
    message_id = host.submit(message("Subject: Once", sender=user.address), user, "a@elsewhere.test")
    assert host.ended() == -signal.SIGKILL
    sink.dot.set()
    host.environ.pop("Debug__CrashPoint")
    host.start()
    end_leases(host)
    until_state(host, message_id, "delivered")
    assert len(sink.taken) == copies
    # Of all of them nobody knows whether the host has it
    assert [(outcome, doubled) for outcome, _, _, doubled in attempts(host, message_id)] == [
        ("in doubt", False),
        ("delivered", True),
    ]


def test_a_reply_that_is_lost_is_in_doubt(new_host: MakeHost, net: Internet) -> None:
    tries: list[str] = []

    def answer(line: str) -> str | None:
        if line == ".":
            tries.append(line)
            return "" if len(tries) == 1 else None
        return None

    sink = net.sink("elsewhere.test", answer=answer)
    host = new_host(net.settings)
    host.start()
    user = host.user()
    message_id = host.submit(message(sender=user.address), user, "a@elsewhere.test")
    until_state(host, message_id, "delivered")
    assert [(outcome, doubled) for outcome, _, _, doubled in attempts(host, message_id)] == [
        ("in doubt", False),
        ("delivered", True),
    ]
    assert len(sink.ended) == 2


def test_two_hosts_deliver_each_message_once(
    new_host: MakeHost, net: Internet, database_parameters: dict[str, str]
) -> None:
    names = domains(net)
    hosts = [new_host(net.settings, database=database_parameters) for _ in range(2)]
    for host in hosts:
        host.start()
    for sink in net.sinks:
        sink.dot.clear()
    queue(hosts[0], names, EACH)
    # Neither is done before the other has its part
    until(lambda: workers(hosts[0]) == 2)
    for sink in net.sinks:
        sink.dot.set()
    until(lambda: left(hosts[0]) == 0, 180.0 + EACH)
    assert len(taken(net)) == EACH * DOMAINS
    assert set(taken(net).values()) == {1}
    assert workers(hosts[0]) == 2


def test_a_database_that_restarts_loses_nothing(
    new_host: MakeHost, net: Internet, own_postgres: PostgresServer
) -> None:
    names = domains(net)
    host = new_host(net.settings, database=own_postgres.parameters("postgres"))
    host.cli("db", "upgrade", "--standalone")
    queue(host, names, 60)
    host.start()
    for part in (100, 300):
        until(lambda: sum(taken(net).values()) >= part, step=0.005)  # noqa: B023
        own_postgres.stop(signal.SIGQUIT)
        own_postgres.start()
    end_leases(host)
    until(lambda: left(host) == 0, 180.0)
    assert len(taken(net)) == 60 * DOMAINS
    # What was between its dot and the note of it when the database went may come twice, and is marked
    twice = sum(taken(net).values()) - 60 * DOMAINS
    (marked,) = host.row("SELECT count(*) FROM relaymail.attempt WHERE possible_duplicate")
    assert twice <= marked


def test_sigterm_lets_what_is_behind_its_dot_end_and_gives_the_rest_back(
    new_host: MakeHost, net: Internet, database_parameters: dict[str, str]
) -> None:
    names = domains(net)
    host = new_host(net.settings, database=database_parameters)
    host.start()
    for sink in net.sinks:
        sink.dot.clear()
    queue(host, names, 30)
    # A destination that has taken nothing yet has two connections: none of them is on its way to its dot
    until(lambda: sum(len(sink.ended) for sink in net.sinks) == 2 * DOMAINS)
    assert leased(host) > 2 * DOMAINS
    host.terminate()
    until(lambda: leased(host) == 2 * DOMAINS)
    for sink in net.sinks:
        sink.dot.set()
    assert host.ended() == 0
    assert 30 * DOMAINS - left(host) == 2 * DOMAINS
    assert leased(host) == 0
    host.start()
    until(lambda: left(host) == 0, 180.0)
    assert set(taken(net).values()) == {1}
    assert len(taken(net)) == 30 * DOMAINS


@pytest.mark.skipif(shutil.which("faketime") is None, reason="Debian's faketime is not installed")
def test_a_clock_that_is_an_hour_slow_changes_nothing(
    new_host: MakeHost, net: Internet, database_parameters: dict[str, str]
) -> None:
    """Due times, ages and leases are PostgreSQL's."""
    tries: list[str] = []

    def answer(line: str) -> str | None:
        if line.startswith("RCPT"):
            tries.append(line)
            return "451 4.7.1 greylisted" if len(tries) == 1 else None
        return None

    sink = net.sink("elsewhere.test", answer=answer)
    library = next(
        path
        for path in (
            "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
            "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        )
        if os.path.exists(path)
    )
    slow = {"LD_PRELOAD": library, "FAKETIME": "-1h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    host = new_host(net.settings | slow, database=database_parameters)
    host.start()
    user = host.user()
    message_id = host.submit(message("Subject: Slow", sender=user.address), user, "a@elsewhere.test")
    until_state(host, message_id, "delivered")
    assert sink.subjects() == ["Slow"]
    assert len(tries) == 2
