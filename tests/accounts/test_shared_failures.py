"""Failed logins, counted by several hosts together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from relaymail.hosting import shared_failures
from relaymail.hosting.login_limiter import FailedLoginLimiter
from relaymail.hosting.shared_failures import SharedFailures
from relaymail.store.database import Database
from tests.conftest import reactor, run_on_reactor
from tests.support.postgres import PostgresServer
from tests.support.waiting import until


class Host:
    """The limiter of a host, which hears of the others'."""

    def __init__(self, database: Database) -> None:
        self.limiter = FailedLoginLimiter(reactor, 3, 900.0, 0.0, 0.0)
        self.shared = SharedFailures(self.limiter, database)
        self.shared.start()

    def failures(self, client: str) -> int:
        """How many count."""
        return sum(state.failures for state in self.limiter.states(999) if state.client == client)


@pytest.fixture
def hosts(database: Database) -> Iterator[list[Host]]:
    """Three hosts on one database, listening."""
    found = [Host(database) for _ in range(3)]
    heard: list[str] = []
    database.listen(shared_failures.CHANNEL, heard.append)
    run_on_reactor(until(reactor, lambda: bool(heard)))
    yield found
    for host in found:
        run_on_reactor(host.shared.stop())


async def test_guesses_at_several_hosts_are_counted_together(hosts: list[Host]) -> None:
    for host in hosts:
        assert host.limiter.check("192.0.2.1") == 0
        host.limiter.failed("192.0.2.1")
    await until(reactor, lambda: all(host.failures("192.0.2.1") == 3 for host in hosts))
    assert all(host.limiter.check("192.0.2.1") > 800 for host in hosts)
    assert all(host.limiter.check("192.0.2.2") == 0 for host in hosts)


async def test_a_right_password_wipes_the_slate_everywhere(hosts: list[Host]) -> None:
    hosts[0].limiter.failed("2001:db8::1")
    hosts[0].limiter.failed("2001:db8::2")
    await until(reactor, lambda: all(host.failures("2001:db8::/64") == 2 for host in hosts))
    hosts[1].limiter.succeeded("2001:db8::3")
    hosts[1].limiter.failed("2001:db8::4")
    await until(reactor, lambda: all(host.failures("2001:db8::/64") == 1 for host in hosts))


async def test_many_clients_take_several_notifications(hosts: list[Host]) -> None:
    clients = [f"2001:db8:{n:x}:ffff:ffff:ffff:ffff:ffff" for n in range(220)]
    for client in clients:
        hosts[0].limiter.failed(client)
    await until(reactor, lambda: all(len(host.limiter) == len(clients) for host in hosts))
    assert all(host.limiter.states(1)[0].failures == 1 for host in hosts)


async def test_what_is_no_news_is_not_believed(hosts: list[Host], database: Database) -> None:
    for payload in ("x", "{}", '{"host": "a", "succeeded": [1], "failed": {}}'):
        await database.query("test.tell", "SELECT pg_notify(%s, %s)", (shared_failures.CHANNEL, payload))
    hosts[0].limiter.failed("192.0.2.1")
    await until(reactor, lambda: hosts[1].failures("192.0.2.1") == 1)


async def test_without_a_database_each_host_counts_by_itself(
    postgres: PostgresServer, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_failures, "TIMEOUT", 0.2)
    monkeypatch.setattr(shared_failures, "CLIENTS_WAITING", 10)
    postgres.stop()
    try:
        for n in range(30):
            hosts[0].limiter.failed(f"192.0.2.{n}")
        assert hosts[0].failures("192.0.2.1") == 1
        await until(reactor, lambda: hosts[0].shared._telling is None)
    finally:
        postgres.start()
    assert len(hosts[0].limiter) == 30
