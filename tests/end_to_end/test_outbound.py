"""What is submitted for elsewhere gets there, or its sender hears of it."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import UUID

import pytest

from tests.end_to_end.api import Api
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.end_to_end.outbound import Internet, attempts, first_attempt, internet, states, until_state
from tests.support.polling import until


class World(NamedTuple):
    """A host, what is around it, and somebody who sends."""

    net: Internet
    host: Host
    api: Api
    user: User

    def submit(self, raw: bytes, *recipients: str) -> str:
        """Send a message; its id."""
        return self.host.submit(raw, self.user, *recipients)

    def send(self, *recipients: str, subject: str = "Hello") -> str:
        """The same with a message of no interest."""
        return self.submit(message(f"Subject: {subject}", sender=self.user.address), *recipients)

    def report(self, about: str) -> email.message.EmailMessage:
        """The report about a message, once it is in the sender's mailbox."""

        def found() -> list[tuple[str]]:
            return self.host.rows(
                "SELECT m.id::text FROM relaymail.queue q JOIN relaymail.message m ON m.id = q.dsn_id"
                " WHERE q.message_id = %s LIMIT 1",
                UUID(about),
            )

        until(lambda: bool(found()))
        report = found()[0][0]
        (shared,) = self.host.emails(report)
        assert self.host.readers(report) == {shared: {self.user.id}}
        assert self.api.until_told(str(shared))["userIds"] == [str(self.user.id)]
        raw = self.host.export(report)
        made = email.message_from_bytes(raw, policy=email.policy.default)
        assert isinstance(made, email.message.EmailMessage)
        assert made.get_content_type() == "multipart/report"
        return made


@pytest.fixture(scope="module")
def world(made_data: Path) -> Iterator[World]:
    """One for the tests that stop nothing."""
    api = Api()
    with TemporaryDirectory(prefix="relaymail-e2e-") as folder, internet() as net:
        host = Host(Path(folder), {"Api__BaseUrl": api.url, **net.settings})
        try:
            host.start()
            yield World(net, host, api, host.user("sender"))
        finally:
            host.remove()
            api.stop()


def fields(report: email.message.EmailMessage) -> list[dict[str, str]]:
    """The fields of each recipient in a report."""
    _, status, *_ = report.iter_parts()
    groups = status.get_payload()
    assert isinstance(groups, list)
    return [dict(group.items()) for group in groups[1:] if isinstance(group, email.message.Message)]


def test_a_message_is_sent_as_it_is_to_be_delivered(world: World) -> None:
    sink = world.net.sink("first.test")
    local = world.host.user("local")
    raw = (
        f"From: {world.user.address}\nTo: a@first.test, {local.address}\nBcc: hidden@first.test\n"
        "Subject: Lunch\n\nOne\n.\n..Two\r\n"
    ).encode()
    message_id = world.submit(raw, "a@first.test", "hidden@first.test", local.address)
    sink.until_taken(1)
    until_state(world.host, message_id, "delivered")
    (taken,) = sink.taken
    assert taken.sender.startswith(f"<{world.user.address}>")
    assert taken.recipients == ["<a@first.test>", "<hidden@first.test>"]
    assert taken.data == world.host.cli("message", "export", message_id, "--delivered")
    assert b"hidden" not in taken.data
    assert taken.data.endswith(b"\r\n\r\nOne\r\n.\r\n..Two\r\n")
    # The local user's copy was stored with the message, and not sent
    assert states(world.host, message_id) == {"a@first.test": "delivered", "hidden@first.test": "delivered"}
    (shared,) = world.host.emails(message_id)
    assert world.host.readers(message_id) == {shared: {local.id}}
    assert attempts(world.host, message_id) == [("delivered", "final-dot", "2.0.0", False)] * 2


def test_each_recipient_has_an_outcome_of_its_own(world: World) -> None:
    tries = 0

    def answer(line: str) -> str | None:
        nonlocal tries
        if "gone@" in line:
            return "550-5.1.1 Nobody of\r\n550 5.1.1 that name"
        if "busy@" in line:
            tries += 1
            return "450 4.2.1 Come back later" if tries == 1 else None
        return None

    sink = world.net.sink("own.test", answer=answer)
    message_id = world.send("good@own.test", "gone@own.test", "busy@own.test")
    until(
        lambda: (
            states(world.host, message_id)
            == {"good@own.test": "delivered", "gone@own.test": "failed", "busy@own.test": "delivered"}
        )
    )
    assert [taken.recipients for taken in sink.taken] == [["<good@own.test>"], ["<busy@own.test>"]]
    rows = world.host.rows(
        "SELECT recipient, outcome, reply FROM relaymail.attempts WHERE message_id = %s"
        " ORDER BY recipient, number",
        UUID(message_id),
    )
    assert rows == [
        ("busy@own.test", "deferred", "450 4.2.1 Come back later"),
        ("busy@own.test", "delivered", "250 2.0.0 ok"),
        ("gone@own.test", "failed", "550-5.1.1 Nobody of\n550 5.1.1 that name"),
        ("good@own.test", "delivered", "250 2.0.0 ok"),
    ]
    (about,) = fields(world.report(message_id))
    assert about["Action"] == "failed"
    assert about["Status"] == "5.1.1"
    assert about["Final-Recipient"] == "rfc822;gone@own.test"
    assert "Nobody of" in about["Diagnostic-Code"]

    # It is not asked about that one again for a while
    assert world.host.row("SELECT status FROM relaymail.suppression WHERE address = 'gone@own.test'") == (
        "5.1.1",
    )


def test_a_suppressed_address_is_refused_with_reason_and_date(world: World) -> None:
    world.host.rows(
        "INSERT INTO relaymail.suppression (address, status, reply, expires_at)"
        " VALUES ('gone@other.test', '5.1.1', '550 5.1.1 Nobody of that name', now() + interval '1 day')"
    )
    (since,) = world.host.row(
        "SELECT to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM relaymail.suppression"
        " WHERE address = 'gone@other.test'"
    )
    with world.host.submission(world.user) as wire:
        wire.command(f"MAIL FROM:<{world.user.address}>")
        refusal = wire.command("RCPT TO:<Gone@Other.test>")
        assert refusal.start == "550 5.1.1"
        assert f"since {since}" in refusal.text
        assert "550 5.1.1 Nobody of that name" in refusal.text
        assert wire.command("RCPT TO:<good@other.test>").code == 250


@pytest.mark.parametrize(
    ("domain", "status"),
    [("nowhere.test", "5.4.4"), ("nomail.test", "5.1.10"), ("name.own-mx.test", "5.4.4")],
)
def test_what_dns_says_fails_at_once(world: World, domain: str, status: str) -> None:
    world.net.zones.set("nomail.test", "MX", "0 .")
    world.net.zones.mx("name.own-mx.test", "10 away.own-mx.test")
    message_id = world.send(f"a@{domain}")
    until_state(world.host, message_id, "failed")
    (about,) = fields(world.report(message_id))
    assert about["Status"] == status


def test_what_dns_does_not_say_is_waited_for(world: World) -> None:
    sink = world.net.sink()
    world.net.zones.fail("later.test", "MX")
    message_id = world.send("a@later.test", subject="Waited")
    assert first_attempt(world.host, message_id)[:3] == ("deferred", "connect", "4.4.3")
    world.net.lead(sink, "later.test")
    until_state(world.host, message_id, "delivered")
    assert sink.subjects() == ["Waited"]


def test_the_next_host_is_tried(world: World) -> None:
    closed, refusing = world.net.sink(), world.net.sink(greeting="554 5.3.2 no mail here")
    leaving = world.net.sink(answer=lambda line: "421 4.3.2 not now" if line.startswith("MAIL") else None)
    good = world.net.sink()
    closed.stop()
    for n, sink in enumerate((closed, refusing, leaving, good)):
        world.net.zones.a(f"mx{n}.several.test", sink.address)
    world.net.zones.mx("several.test", *(f"{n} mx{n}.several.test" for n in range(4)))
    message_id = world.send("a@several.test")
    until_state(world.host, message_id, "delivered")
    assert len(good.taken) == 1
    assert refusing.connections == leaving.connections == 1
    # To the sender's side it was one try
    assert attempts(world.host, message_id) == [("delivered", "final-dot", "2.0.0", False)]


def test_a_host_that_takes_no_mail_at_all_fails_it(world: World) -> None:
    world.net.sink("none.test", greeting="521 5.3.2 no mail here")
    message_id = world.send("a@none.test")
    until_state(world.host, message_id, "failed")
    (about,) = fields(world.report(message_id))
    assert "no mail here" in about["Diagnostic-Code"]


def test_a_host_that_is_away_is_left_alone_and_asked_again(world: World) -> None:
    sink = world.net.sink("away.test")
    sink.stop()
    ids = [world.send(f"u{n}@away.test", subject=str(n)) for n in range(5)]
    until(lambda: world.host.rows("SELECT 1 FROM relaymail.blocked WHERE destination = 'away.test'") != [])
    sink.start()
    for message_id in ids:
        until_state(world.host, message_id, "delivered")
    assert sorted(sink.subjects()) == [str(n) for n in range(5)]
    assert world.host.rows("SELECT 1 FROM relaymail.blocked WHERE destination = 'away.test'") == []


def test_connections_are_reused_and_not_too_many(world: World) -> None:
    sink = world.net.sink("busy.test")
    # However long it takes to queue them: the first connections are still there when all of them are
    sink.dot.clear()
    with world.host.submission(world.user) as wire:
        for n in range(60):
            raw = message(f"Subject: {n}", sender=world.user.address)
            assert wire.message(raw, world.user.address, f"u{n}@busy.test").code == 250
    sink.dot.set()
    sink.until_taken(60)
    assert sorted(sink.subjects(), key=int) == [str(n) for n in range(60)]
    assert sink.most_open <= 10
    assert sink.connections < 60


def test_a_large_message_goes_to_a_host_without_8bitmime(world: World) -> None:
    sink = world.net.sink("old.test", extensions=("PIPELINING", "SIZE 100000000"))
    line = "Grüße aus der Ferne, und zwar sehr viele davon\r\n"
    raw = message(
        "Subject: Large",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Transfer-Encoding: 8bit",
        sender=world.user.address,
        body=line * 30_000,
    )
    message_id = world.submit(raw, "a@old.test")
    until_state(world.host, message_id, "delivered")
    (taken,) = sink.taken
    assert taken.data.isascii()
    made = email.message_from_bytes(taken.data, policy=email.policy.default)
    assert isinstance(made, email.message.EmailMessage)
    assert made.get_content().replace("\r\n", "\n") == line.replace("\r\n", "\n") * 30_000


def test_messages_are_signed(world: World) -> None:
    dkim = pytest.importorskip("dkim")
    sink = world.net.sink("signed.test")
    domain = world.user.address.partition("@")[2]
    world.host.cli("dkim", "new", domain, "--selector", "test")
    world.host.cli("dkim", "enable", domain, "test")
    try:
        until_state(world.host, world.send("a@signed.test"), "delivered")
        keys = world.host.rows("SELECT selector, algorithm, public_key FROM relaymail.dkim_key WHERE active")
    finally:
        world.host.cli("dkim", "remove", domain, "test")

    def record(name: bytes, timeout: int = 5) -> bytes:
        selector = name.decode().partition(".")[0]
        (found,) = [f"v=DKIM1; k={kind}; p={key}" for known, kind, key in keys if known == selector]
        return found.encode()

    (taken,) = sink.taken
    assert dkim.verify(taken.data, dnsfunc=record)
    assert not dkim.verify(taken.data.replace(b"Hello", b"Hallo"), dnsfunc=record)


def test_a_held_message_leaves_when_its_time_has_come(world: World) -> None:
    sink = world.net.sink("held.test")
    local = world.host.user("local")
    raw = message("To: a@held.test", sender=world.user.address)
    with world.host.submission(world.user) as wire:
        assert wire.command(f"MAIL FROM:<{world.user.address}> HOLDFOR=3600").code == 250
        for recipient in ("a@held.test", "hidden@held.test", local.address):
            assert wire.command(f"RCPT TO:<{recipient}>").code == 250
        message_id = wire.data(raw).id
    assert set(states(world.host, message_id).values()) == {"queued"}
    assert sink.taken == []
    world.host.rows("UPDATE relaymail.message SET release_at = now() WHERE id = %s", UUID(message_id))
    world.host.rows(
        "WITH due AS (UPDATE relaymail.queue SET due_at = now() WHERE message_id = %s"
        " RETURNING destination, priority)"
        " INSERT INTO relaymail.arrival SELECT DISTINCT destination, priority, now() FROM due",
        UUID(message_id),
    )
    until_state(world.host, message_id, "delivered")
    until(lambda: bool(world.host.emails(message_id)))
    addresses = world.host.rows(
        'SELECT "Address" FROM public."EmailRecipients" WHERE "EmailId" = ANY(%s)',
        world.host.emails(message_id),
    )
    assert {address for (address,) in addresses} == {"a@held.test", local.address}


def test_a_copy_that_is_forwarded_back_is_the_readers(world: World) -> None:
    sink = world.net.sink("forwarder.test")
    reader = world.host.user("reader")
    raw = message("To: list@forwarder.test", "Subject: Round", sender=world.user.address)
    message_id = world.submit(raw, "list@forwarder.test")
    sink.until_taken(1)
    # What a forwarder does: the same message, the same sender, another recipient
    forwarded = b"Received: by forwarder.test; Mon, 2 Nov 2026 00:00:00 +0000\r\n" + sink.taken[0].data
    copy = world.host.deliver(forwarded, reader.address, sender=world.user.address)
    assert copy != message_id
    assert reader.id in set().union(*world.host.readers(copy).values())
    assert world.host.export(copy) == forwarded


def test_a_message_that_goes_round_ends(world: World) -> None:
    world.net.sink("round.test")
    hops = "".join(f"Received: by hop{n}.test; Mon, 2 Nov 2026 00:00:00 +0000\r\n" for n in range(101))
    with world.host.submission(world.user) as wire:
        raw = hops.encode() + message(sender=world.user.address)
        assert wire.message(raw, world.user.address, "a@round.test").start == "554 5.4.6"


def test_the_health_check_looks_at_the_queue(world: World) -> None:
    found = world.host.health()["delivery-queue"]
    assert {"queuedCount", "stalledCount", "highRetryCount"} <= set(found["data"])
    assert found["status"] in {"Healthy", "Degraded"}
    assert found["data"]["stalledCount"] == 0
