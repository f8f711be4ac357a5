"""The worker as a whole, on a real database and to real sockets: what it sends, gives back, never sends."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred

from relaymail.delivery import couriers
from relaymail.delivery.contents import Contents
from relaymail.delivery.signing import Signer
from relaymail.dns import Resolver
from relaymail.outbound import Outbound
from relaymail.settings import Settings, load, own_name, why_off
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database, DatabaseUnavailable
from relaymail.store.dkim import KeysUnusable
from relaymail.store.messages import MessageStore
from relaymail.store.queue import Job, Queue
from relaymail.telemetry import Metrics
from tests.conftest import reactor
from tests.end_to_end.outbound import Internet, internet
from tests.store.queued import one, put
from tests.support.polling import LIMIT
from tests.support.postgres import PostgresServer
from tests.support.waiting import pause, until, until_answered


def settings(**environ: str) -> Settings:
    return load(None, environ).settings


class Worker:
    """Outbound mail of one host."""

    def __init__(
        self,
        database: Database,
        net: Internet,
        metrics: Metrics | None = None,
        chosen: Settings | None = None,
    ) -> None:
        store = MessageStore(database, reactor=reactor, run=maybeDeferred)
        self.database = database
        self.outbound = Outbound(
            chosen or settings(**net.settings),
            database,
            Accounts(database, clock=reactor),
            store,
            metrics or Metrics(),
            resolver=Resolver([net.dns.address], reactor=reactor),
            reactor=reactor,
            run=maybeDeferred,
            stored=lambda: None,
            crash=lambda point: None,
        )

    async def __aenter__(self) -> Worker:
        await self.outbound.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.outbound.stop()

    async def rows(self) -> list[tuple[Any, ...]]:
        """State, status and whether somebody has it, of all rows."""
        return await self.database.query(
            "test.rows",
            "SELECT recipient, state, last_status, lease_token IS NOT NULL FROM relaymail.queue ORDER BY id",
        )

    async def was_tried(self) -> bool:
        """Whether something is known of the first row."""
        return (await self.rows())[0][2] is not None

    async def until(self, state: str, limit: float = LIMIT) -> None:
        """Wait until all rows are in a state and nobody's."""
        end = reactor.seconds() + limit
        while any((row[1], row[3]) != (state, False) for row in await self.rows()):
            assert reactor.seconds() < end, await self.rows()
            await pause(reactor, 0.02)


@pytest.fixture
def net() -> Iterator[Internet]:
    with internet() as made:
        yield made


async def test_what_is_queued_is_delivered(database: Database, net: Internet, tmp_path: Path) -> None:
    sinks = [net.sink("one.test"), net.sink("two.test")]
    await put(database, tmp_path, "a@one.test", "b@one.test", "c@two.test")
    async with Worker(database, net) as worker:
        await worker.until("delivered")
        # What comes while it runs, with a hint
        await put(database, tmp_path, "d@two.test")
        worker.outbound.queued()
        await worker.until("delivered")
    assert [taken.recipients for taken in sinks[0].taken] == [["<a@one.test>", "<b@one.test>"]]
    assert [taken.recipients for taken in sinks[1].taken] == [["<c@two.test>"], ["<d@two.test>"]]


async def test_a_message_for_many_goes_in_few_transactions(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    sink, other = net.sink("one.test"), net.sink("two.test")
    many = [f"u{n}@one.test" for n in range(120)]
    await put(database, tmp_path, "a@two.test", *many, "b@two.test")
    async with Worker(database, net) as worker:
        await worker.until("delivered")
    assert sorted(len(taken.recipients) for taken in sink.taken) == [20, 50, 50]
    assert sorted(one for taken in sink.taken for one in taken.recipients) == sorted(f"<{to}>" for to in many)
    assert [taken.recipients for taken in other.taken] == [["<a@two.test>", "<b@two.test>"]]


async def test_what_is_cancelled_before_its_dot_is_not_sent(
    database: Database,
    database_parameters: dict[str, str],
    postgres: PostgresServer,
    net: Internet,
    tmp_path: Path,
) -> None:
    def answer(line: str) -> str | None:
        if line == "DATA":
            postgres.sql(
                database_parameters["dbname"],
                "SELECT relaymail.queue_cancel(array_agg(id)) FROM relaymail.queue",
            )
        return None

    sink = net.sink("one.test", answer=answer)
    await put(database, tmp_path, "a@one.test")
    async with Worker(database, net) as worker:
        await until(reactor, lambda: sink.commands["DATA"] > 0)
        await worker.until("cancelled")
    assert sink.ended == []


async def test_a_message_that_is_not_as_it_was_received_is_kept_and_not_sent(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    sink = net.sink("one.test")
    await put(database, tmp_path, "a@one.test")
    await database.execute("test.damage", "UPDATE relaymail.message_part SET content = 'damaged'")
    async with Worker(database, net) as worker:
        await until_answered(reactor, worker.was_tried)
        assert (await worker.rows())[0][1:3] == ("queued", "4.3.0")
    assert sink.commands["MAIL"] == 0


async def test_a_fault_of_ours_is_no_failure_of_mail(
    database: Database, net: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = net.sink("one.test")
    usual = Contents.content
    faults = 0

    async def faulty(self: Contents, work: Any) -> Any:
        nonlocal faults
        faults += 1
        if faults == 1:
            raise RuntimeError("a fault")
        return await usual(self, work)

    monkeypatch.setattr(Contents, "content", faulty)
    await put(database, tmp_path, "a@one.test")
    async with Worker(database, net) as worker:
        await worker.until("delivered")
    assert len(sink.taken) == 1
    outcomes = await database.query(
        "test.tries", "SELECT outcome, status FROM relaymail.attempt ORDER BY number"
    )
    assert outcomes == [("deferred", "4.3.0"), ("delivered", "2.0.0")]


@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
@pytest.mark.parametrize("code", [530, 535, 550])
async def test_a_relay_that_wants_a_login_fails_no_mail(
    database: Database, net: Internet, tmp_path: Path, command: str, code: int
) -> None:
    relay = net.sink(
        "relay.test",
        answer=lambda line: f"{code} 5.7.0 Says no" if line.startswith(command) else None,
    )
    await put(database, tmp_path, "a@one.test")
    chosen = {
        "OutboundMail__RelayHost": relay.address,
        "OutboundMail__RelayPort": net.settings["OutboundMail__Port"],
        "OutboundMail__RelayUseTls": "false",
    }
    async with Worker(database, net, chosen=settings(**net.settings, **chosen)) as worker:
        await until_answered(reactor, worker.was_tried)
        _, state, status, _ = (await worker.rows())[0]
    assert (state, status) == (("failed", "5.7.0") if code == 550 else ("queued", "4.7.0"))


@pytest.mark.parametrize("own", [False, True])
async def test_what_grew_too_old_behind_a_block_fails_untried(
    database: Database, net: Internet, tmp_path: Path, own: bool
) -> None:
    heard: list[str] = []

    class Listening(Metrics):
        def delivered(self, result: str, recipients: int = 1) -> None:
            heard.append(result)

    sink = net.sink("one.test")
    await put(database, tmp_path, "a@one.test")
    await database.execute("test.age", "UPDATE relaymail.queue SET queued_at = now() - interval '6 days'")
    await database.execute(
        "test.block",
        "INSERT INTO relaymail.blocked (destination, failures, blocked_until, reason)"
        " VALUES ('one.test', 9, now() + interval '1 hour', 'the host did not answer')",
    )
    usual = {key: value for key, value in net.settings.items() if own or "RetryDelays" not in key}
    async with Worker(database, net, Listening(), settings(**usual)) as worker:
        await worker.until("failed")
        # The report of it may have failed as well by now
        await until(reactor, lambda: heard[:1] == ["failed"])
    assert (await worker.rows())[0][2] == "5.4.7"
    assert sink.connections == 0


async def test_stopping_gives_back_what_is_not_behind_its_dot(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    # A host that never replies to MAIL, and one whose reply to the dot is late
    silence = threading.Event()
    mute = net.sink(
        "mute.test", answer=lambda line: "" if line[:4] == "MAIL" and silence.wait(LIMIT) else None
    )
    held = net.sink("slow.test")
    held.dot.clear()
    for n in range(5):
        await put(database, tmp_path, f"u{n}@mute.test", f"u{n}@slow.test")
    worker = Worker(database, net)
    await worker.outbound.start()
    await until(reactor, lambda: bool(held.ended) and mute.commands["MAIL"] > 0)
    behind = len(held.ended)
    reactor.callLater(0.2, held.dot.set)
    await worker.outbound.stop()
    silence.set()
    rows = await worker.rows()
    assert not any(leased for *_, leased in rows)
    assert sum(state == "delivered" for _, state, *_ in rows) == len(held.taken) >= behind
    assert all(state == "queued" for recipient, state, *_ in rows if recipient.endswith("@mute.test"))


async def test_a_stop_at_once_gives_back_what_was_cut_short(
    database: Database, net: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being given back when the stop comes to its end is given back all the same."""
    silence = threading.Event()
    mute = net.sink(
        "mute.test", answer=lambda line: "" if line[:4] == "MAIL" and silence.wait(LIMIT) else None
    )
    for n in range(8):
        await put(database, tmp_path, f"u{n}@mute.test")
    usual = Queue.give_back

    async def slow(self: Queue, unused: Iterable[Job]) -> set[int]:
        # Other statements go first; many jobs take longer than one
        jobs = list(unused)
        for _ in range(5 * len(jobs)):
            await database.query("test.wait", "SELECT 1")
        return await usual(self, jobs)

    monkeypatch.setattr(Queue, "give_back", slow)
    worker = Worker(database, net)
    await worker.outbound.start()
    await until(reactor, lambda: mute.commands["MAIL"] > 0)
    await worker.outbound.stop()
    silence.set()
    assert {(state, leased) for _, state, _, leased in await worker.rows()} == {("queued", False)}


async def test_what_cannot_be_signed_waits_and_its_connection_is_used_again(
    database: Database, net: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = net.sink("one.test")
    unforeseen: list[str] = []

    class Listening(Metrics):
        def unexpected_error(self) -> None:
            unforeseen.append("error")

    usual = Signer.fields
    asked = 0

    async def unreadable(self: Signer, form: Any) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise KeysUnusable("DKIM key s1 of example.test: /etc/dkim/s1.pem cannot be read")
        return await usual(self, form)

    monkeypatch.setattr(Signer, "fields", unreadable)
    await put(database, tmp_path, "a@one.test")
    async with Worker(database, net, Listening()) as worker:
        await worker.until("delivered")
    tries = await database.query(
        "test.tries", "SELECT outcome, status, reply FROM relaymail.attempt ORDER BY number"
    )
    assert tries[0][:2] == ("deferred", "4.3.5")
    # The sender of a report is not told of our files
    assert "/etc" not in tries[0][2]
    assert tries[1][:2] == ("delivered", "2.0.0")
    assert sink.connections == 1
    assert unforeseen == []


async def test_a_connection_is_ended_when_the_database_fails_under_it(
    database: Database, net: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = net.sink("one.test")
    usual = Signer.fields
    asked = 0

    async def failing(self: Signer, form: Any) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise DatabaseUnavailable("away")
        return await usual(self, form)

    monkeypatch.setattr(Signer, "fields", failing)
    monkeypatch.setattr(couriers, "RETREAT", 0.0)
    await put(database, tmp_path, "a@one.test")
    async with Worker(database, net) as worker:
        await worker.until("delivered")
    await until(reactor, lambda: sink.commands["QUIT"] == sink.connections == 2)


async def test_a_domain_that_is_gone_does_not_keep_its_mail_behind_a_block(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    for n in range(3):
        await put(database, tmp_path, f"u{n}@gone.test")
    await database.execute(
        "test.block",
        "INSERT INTO relaymail.blocked (destination, failures, blocked_until, reason)"
        " VALUES ('gone.test', 9, now(), 'the name servers did not answer')",
    )
    async with Worker(database, net) as worker:
        await worker.until("failed")


async def test_metrics_hear_of_results(database: Database, net: Internet, tmp_path: Path) -> None:
    net.sink("one.test", answer=lambda line: "550 5.1.1 no" if "gone@" in line else None)
    heard: list[tuple[str, int]] = []

    class Listening(Metrics):
        def delivered(self, result: str, recipients: int = 1) -> None:
            heard.append((result, recipients))

    await put(database, tmp_path, "a@one.test", "gone@one.test", "b@one.test")
    async with Worker(database, net, Listening()):
        await until(reactor, lambda: len(heard) == 2)
    assert sorted(heard) == [("delivered", 2), ("failed", 1)]


async def until_nothing_is_owed(database: Database) -> None:
    await until_answered(
        reactor, lambda: one(database, "SELECT count(*) = 0 FROM relaymail.queue WHERE owed_dsn IS NOT NULL")
    )


async def test_a_report_that_gets_nowhere_is_counted_and_written_down(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    net.sink("one.test", answer=lambda line: "550 5.1.1 no" if line[:4] == "RCPT" else None)
    kinds: list[str] = []

    class Listening(Metrics):
        def reported(self, kind: str) -> None:
            kinds.append(kind)

    message_id = await put(database, tmp_path, "a@one.test", sender="", rcpt={"NOTIFY": "NEVER"})
    async with Worker(database, net, Listening()) as worker:
        await worker.until("failed")
        await until(reactor, lambda: kinds != [])
        await until_nothing_is_owed(database)
    assert kinds == ["dropped"]
    row = await one(
        database,
        "SELECT message_id, detail->>'why' FROM relaymail.event WHERE kind = 'not reported'",
    )
    assert row == (message_id, "null sender")


async def test_what_nobody_wants_is_not_counted_as_a_report(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    kinds: list[str] = []

    class Listening(Metrics):
        def reported(self, kind: str) -> None:
            kinds.append(kind)

    await put(database, tmp_path, "a@one.test", rcpt={"NOTIFY": "NEVER"})
    await database.execute(
        "test.owe",
        "UPDATE relaymail.queue SET state = 'failed', finished_at = now(), owed_dsn = 'failed'",
    )
    async with Worker(database, net, Listening()):
        await until_nothing_is_owed(database)
    assert kinds == []


async def test_reports_are_made_where_mail_is_not_sent_on(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    """Those of mail between local users: what owes a report is kept until it is made."""
    await put(database, tmp_path, "a@one.test", sender="b@elsewhere.test", rcpt={"NOTIFY": "SUCCESS"})
    await database.execute(
        "test.owe",
        "UPDATE relaymail.queue SET state = 'delivered', finished_at = now(), owed_dsn = 'delivered'",
    )
    chosen = settings(**net.settings, OutboundMail__Enabled="false")
    async with Worker(database, net, chosen=chosen):
        await until_nothing_is_owed(database)
    # It could not be sent, and does not wait for that either
    assert await one(database, "SELECT count(*) FROM relaymail.queue WHERE state = 'queued'") == 0


async def test_metrics_hear_what_was_asked_of_a_hosts_tls(
    database: Database, net: Internet, tmp_path: Path
) -> None:
    net.sink("one.test")
    sources: list[str] = []

    class Listening(Metrics):
        def tls_policy_found(self, source: str) -> None:
            sources.append(source)

    await put(database, tmp_path, "a@one.test")
    async with Worker(database, net, Listening()) as worker:
        await worker.until("delivered")
    assert sources == ["opportunistic"]


@pytest.mark.parametrize(
    ("environ", "off"),
    [
        ({}, True),
        ({"Smtp__ServerName": "mail.example.com"}, False),
        ({"Smtp__ServerName": "mail.example.com", "OutboundMail__Enabled": "false"}, True),
        ({"OutboundMail__SenderDomain": "mail.example.com"}, False),
        ({"Smtp__ServerName": "mailhost"}, True),
    ],
)
def test_outbound_is_off_without_a_full_name(environ: dict[str, str], off: bool) -> None:
    assert (why_off(settings(**environ)) is not None) == off


def test_the_name_said_to_others_is_the_senders_domain_or_the_hosts() -> None:
    assert own_name(settings(Smtp__ServerName="a.example.com")) == "a.example.com"
    both = settings(Smtp__ServerName="a.example.com", OutboundMail__SenderDomain="b.example.com")
    assert own_name(both) == "b.example.com"
