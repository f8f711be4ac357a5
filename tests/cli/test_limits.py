"""``relaymail limits``, which asks the hosts that run on the database."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest
from twisted.internet.threads import deferToThread

from relaymail.hosting.limit_desk import LimitDesk
from relaymail.hosting.login_limiter import FailedLoginLimiter
from relaymail.smtp.limits import Allowance, ClientLimits, Visit
from relaymail.smtp.reply import ReplyError
from relaymail.store import limits as store
from relaymail.store.database import Database
from tests.cli.conftest import Command
from tests.conftest import reactor, run_on_reactor
from tests.support.waiting import until


class Counting:
    """What a host counts, and its desk."""

    def __init__(self, database: Database, name: str) -> None:
        loopback = (ip_network("127.0.0.0/8"),)
        self.mx = ClientLimits(reactor.seconds, Allowance(20, 60, 100, 500), loopback)
        self.submission = ClientLimits(reactor.seconds, Allowance(50), loopback)
        self.logins = FailedLoginLimiter(reactor, 5, 900.0, 300.0, 900.0)
        listeners = {"mx": self.mx, "submission": self.submission}
        LimitDesk(database, name, listeners, self.logins, lambda: 7).start()

    def fill(self) -> None:
        """Let clients come: one stays and sends, one goes, one guesses."""
        stays, goes = Visit(self.mx), Visit(self.submission)
        stays.enter("192.0.2.1")
        stays.message()
        for _ in range(3):
            stays.recipient()
        goes.enter("2001:db8::1")
        goes.leave()
        for _ in range(2):
            self.logins.failed("192.0.2.1")
        self.logins.failed("192.0.2.66")


@pytest.fixture
def hosts(database: Database) -> list[Counting]:
    """Two hosts on one database, listening."""
    heard: list[str] = []
    found = [Counting(database, "one:1"), Counting(database, "two:2")]
    database.listen(store.QUESTION_CHANNEL, heard.append)
    run_on_reactor(until(reactor, lambda: bool(heard)))
    return found


async def run(command: Command, *arguments: str, code: int = 0) -> Any:
    """The command's JSON, while the hosts go on."""
    return await deferToThread(lambda: command.json("limits", *arguments, code=code))


async def rows(database: Database) -> int:
    """Answers that lie about."""
    return int((await database.query("test.rows", "SELECT count(*) FROM relaymail.limit_state"))[0][0])


async def test_every_host_shows_what_it_counts(
    relaymail: Command, hosts: list[Counting], database: Database
) -> None:
    hosts[0].fill()
    first, second = sorted(await run(relaymail, "show"), key=lambda host: str(host["host"]))
    assert (first["host"], first["connections"]) == ("one:1", 7)
    mx, submission = first["listeners"]
    assert mx["limits"] == {
        "connections": 20,
        "connections_per_minute": 60,
        "messages_per_minute": 100,
        "recipients_per_minute": 500,
    }
    assert submission["limits"]["messages_per_minute"] == 0
    assert mx["clients"] == [
        {
            "client": "192.0.2.1",
            "connections": 1,
            "connections_per_minute": 1,
            "messages_per_minute": 1,
            "recipients_per_minute": 3,
            "refused": 0,
        }
    ]
    assert [client["client"] for client in submission["clients"]] == ["2001:db8::/64"]
    assert [(login["client"], login["failures"]) for login in first["failed_logins"]] == [
        ("192.0.2.66", 1),
        ("192.0.2.1", 2),
    ]
    assert second["host"] == "two:2"
    assert [listener["clients"] for listener in second["listeners"]] == [[], []]
    assert await rows(database) == 0


async def test_the_table_is_for_people(relaymail: Command, hosts: list[Counting]) -> None:
    hosts[1].fill()
    done = await deferToThread(relaymail, "limits", "show")
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert ["two:2", "mx", "192.0.2.1", "1/20", "1/60", "1/100", "3/500", "0"] in lines
    assert ["two:2", "submission", "2001:db8::/64", "0/50", "1/-", "0/-", "0/-", "0"] in lines
    assert ["two:2", "192.0.2.1", "2"] in [line[:3] for line in lines]
    assert b"one:1: 7 connections open in all" in done.stderr


async def test_nobody_counted_is_said(relaymail: Command, hosts: list[Counting]) -> None:
    done = await deferToThread(relaymail, "limits", "show")
    assert done.stdout == b""
    assert b"No client is counted" in done.stderr


async def test_one_client_is_reset_at_every_host(relaymail: Command, hosts: list[Counting]) -> None:
    for host in hosts:
        host.fill()
    answer = await run(relaymail, "reset", "192.0.2.1")
    assert sorted((host["host"], host["forgotten"]) for host in answer) == [("one:1", 1), ("two:2", 1)]
    for host in hosts:
        assert host.logins.check("192.0.2.1") == 0
        assert host.logins.check("192.0.2.66") > 0
        (client,) = host.mx.states(9)
        assert (client.connections, client.messages_per_minute) == (1, 0)
        assert len(host.submission) == 1


@pytest.mark.parametrize("client", ["2001:db8::ffff", "2001:db8::/64"])
async def test_an_ipv6_client_is_reset_by_any_address_of_its_64(
    relaymail: Command, hosts: list[Counting], client: str
) -> None:
    hosts[0].fill()
    done = await deferToThread(relaymail, "limits", "reset", client)
    assert sorted(done.stdout.decode().splitlines()) == [
        "one:1: 2001:db8::/64 is forgotten.",
        "two:2: 2001:db8::/64 was not counted.",
    ]
    assert len(hosts[0].submission) == 0


async def test_all_clients_are_reset(relaymail: Command, hosts: list[Counting]) -> None:
    hosts[0].fill()
    answer = await run(relaymail, "reset")
    assert sorted((host["host"], host["forgotten"]) for host in answer) == [("one:1", 4), ("two:2", 0)]
    assert hosts[0].logins.states(9) == []
    assert [client.messages_per_minute for client in hosts[0].mx.states(9)] == [0]


def test_what_is_no_address_is_refused(relaymail: Command) -> None:
    error = relaymail.error("limits", "reset", "example.org", code=2)
    assert "'example.org' is neither an IP address nor an IPv6 /64" in error


def test_no_host_is_said_in_a_sentence(relaymail: Command) -> None:
    assert relaymail.error("limits", "show") == (
        "Error: No host answered within 3 seconds: none runs on this database, or it cannot reach it.\n"
    )


async def test_what_is_no_question_is_not_answered(
    relaymail: Command, hosts: list[Counting], database: Database
) -> None:
    hosts[0].fill()
    for payload in ("x", "{}", '{"id": "1", "command": "reset"}', '{"command": "reset"}'):
        await database.query("test.ask", "SELECT pg_notify(%s, %s)", (store.QUESTION_CHANNEL, payload))
    assert len(await run(relaymail, "show")) == 2
    assert hosts[0].logins.check("192.0.2.1") > 0


async def test_answers_that_nobody_read_are_deleted_later(
    relaymail: Command, hosts: list[Counting], database: Database
) -> None:
    await database.execute(
        "test.stale",
        "INSERT INTO relaymail.limit_state (question, state, answered_at)"
        " VALUES (gen_random_uuid(), '', now() - interval '1 hour'), (gen_random_uuid(), '', now())",
    )
    await run(relaymail, "show")
    assert await rows(database) == 1


def test_an_answer_has_a_bound() -> None:
    limits = ClientLimits(reactor.seconds, Allowance(connections=0))
    for n in range(3000):
        with suppress(ReplyError):
            limits.enter(f"10.0.{n >> 8}.{n & 255}")
    assert len(limits) == 3000
    assert len(limits.states(1000)) == 1000
