"""How much one client may ask for, with a clock that the test moves."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.python.failure import Failure

from relaymail.smtp import limits
from relaymail.smtp.limits import Allowance, ClientLimits, ClientState, Rate, Visit, network_of
from relaymail.smtp.policy import Limits, Policy
from relaymail.smtp.reply import ReplyError
from tests.smtp.memory import Conversation

GREETING = b"220 mx.example.test ESMTP relaymail\r\n"
CROWD = b"421 4.7.0 Too many connections from your address\r\n"
PROXIES = (ip_network("192.0.2.0/24"),)
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MX = Policy("mx", "mx.example.test", xclient_networks=PROXIES)


class House:
    """Sessions that share a clock and limits."""

    def __init__(self, folder: Path, allowance: Allowance) -> None:
        self.clock = Clock()
        self.limits = ClientLimits(self.clock.seconds, allowance, LOOPBACK)
        self._folder = folder

    def visit(self, client: str = "198.51.100.1", policy: Policy = MX) -> Conversation:
        """A connection of this client."""
        return Conversation(policy, self._folder, clients=self.limits, client=client, clock=self.clock)

    def greeted(self, client: str = "198.51.100.1") -> Conversation:
        """The same, greeted and behind EHLO."""
        conversation = self.visit(client)
        assert conversation.received() == GREETING
        assert conversation.say(b"EHLO client.example.org").startswith(b"250-")
        return conversation

    def state(self, client: str = "198.51.100.1") -> ClientState:
        """What is counted of a client."""
        (found,) = [state for state in self.limits.states(100) if state.client == client]
        return found


def leave(conversation: Conversation) -> None:
    """The connection is gone."""
    conversation.server.connectionLost(Failure(ConnectionDone()))


MakeHouse = Callable[..., House]


@pytest.fixture
def house(tmp_path: Path) -> MakeHouse:
    """Makes limits with what the test allows."""
    return lambda **allowed: House(tmp_path, Allowance(**allowed))


# Connections at a time


def test_a_client_has_so_many_connections_at_a_time_and_no_more(house: MakeHouse) -> None:
    h = house(connections=2)
    first, second = h.visit(), h.visit()
    third = h.visit()
    assert [c.received() for c in (first, second, third)] == [GREETING, GREETING, CROWD]
    assert third.closing
    leave(third)
    assert h.visit().received() == CROWD
    leave(first)
    assert h.visit().received() == GREETING


def test_another_client_does_not_feel_it(house: MakeHouse) -> None:
    h = house(connections=1)
    assert h.visit("198.51.100.1").received() == GREETING
    assert h.visit("198.51.100.1").received() == CROWD
    assert h.visit("198.51.100.2").received() == GREETING


def test_an_exempt_client_has_as_many_as_it_likes_and_is_not_counted(house: MakeHouse) -> None:
    h = house(connections=1, connections_per_minute=1, messages_per_minute=1, recipients_per_minute=1)
    for client in ("127.0.0.1", "127.0.0.1", "::1", "::1"):
        c = h.greeted(client)
        for _ in range(3):
            assert c.say(b"MAIL FROM:<a@b.example>").startswith(b"250 ")
            assert c.say(b"RCPT TO:<b@example.test>").startswith(b"250 ")
            assert c.say(b"RSET").startswith(b"250 ")
    assert len(h.limits) == 0


def test_an_ipv6_client_is_its_64(house: MakeHouse) -> None:
    h = house(connections=1)
    assert h.visit("2001:db8:1:2::1").received() == GREETING
    assert h.visit("2001:db8:1:2:ffff::9").received() == CROWD
    assert h.visit("2001:db8:1:3::1").received() == GREETING
    assert h.state("2001:db8:1:2::/64").refused == 1


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_the_network_of_a_client(client: str, network: str) -> None:
    assert network_of(client) == network


def test_a_client_that_goes_during_its_greeting_is_counted_out(house: MakeHouse) -> None:
    h = house(connections=1)
    for _ in range(5):
        c = h.visit()
        assert c.received() == GREETING
        leave(c)
    assert h.state().connections == 0


# Behind a proxy


def test_xclient_moves_the_connection_to_the_client_it_names(house: MakeHouse) -> None:
    h = house(connections=1)
    first = h.greeted("192.0.2.1")
    assert first.say(b"XCLIENT ADDR=198.51.100.1") == GREETING
    # The proxy is one connection poorer, its client one richer
    second = h.greeted("192.0.2.1")
    assert h.visit("198.51.100.1").received() == CROWD
    assert second.say(b"XCLIENT ADDR=198.51.100.2") == GREETING
    third = h.greeted("192.0.2.1")
    assert third.say(b"XCLIENT ADDR=198.51.100.1") == CROWD
    assert third.closing
    assert {state.client: state.connections for state in h.limits.states(9)} == {
        "198.51.100.1": 1,
        "198.51.100.2": 1,
        "192.0.2.1": 0,
    }
    for conversation in (first, second, third):
        leave(conversation)
    assert all(state.connections == 0 for state in h.limits.states(9))


def test_the_client_that_xclient_names_is_exempt_or_not_by_its_own_address(house: MakeHouse) -> None:
    h = house(connections=1)
    for _ in range(3):
        assert h.greeted("192.0.2.1").say(b"XCLIENT ADDR=IPV6:::ffff:127.0.0.1") == GREETING
    assert h.greeted("192.0.2.1").say(b"XCLIENT ADDR=198.51.100.1") == GREETING
    assert h.greeted("192.0.2.1").say(b"XCLIENT ADDR=198.51.100.1") == CROWD


# By the minute


def test_connections_by_the_minute(house: MakeHouse) -> None:
    h = house(connections_per_minute=3)
    for _ in range(3):
        leave(h.greeted())
    h.clock.advance(20)
    assert h.visit().received() == (
        b"421 4.7.1 Too many connections from your address, try again in 40 seconds\r\n"
    )
    assert h.visit("198.51.100.2").received() == GREETING
    h.clock.advance(39)
    assert h.visit().received().endswith(b"try again in 1 second\r\n")
    h.clock.advance(1)
    assert h.visit().received() == GREETING


def test_messages_by_the_minute(house: MakeHouse) -> None:
    h = house(messages_per_minute=3)
    first, second = h.greeted(), h.greeted()
    for _ in range(3):
        assert first.say(b"MAIL FROM:<>").startswith(b"250 ")
        first.say(b"RSET")
    h.clock.advance(15)
    # All connections of the client, and no other client
    refusal = b"451 4.7.1 Too many messages, try again in 45 seconds\r\n"
    assert first.say(b"MAIL FROM:<>") == refusal
    assert second.say(b"MAIL FROM:<>") == refusal
    assert h.greeted("198.51.100.2").say(b"MAIL FROM:<>").startswith(b"250 ")
    assert first.say(b"RCPT TO:<b@example.test>") == b"503 5.5.1 Send MAIL first\r\n"
    h.clock.advance(45)
    assert first.say(b"MAIL FROM:<>").startswith(b"250 ")


def test_recipients_by_the_minute(house: MakeHouse) -> None:
    h = house(recipients_per_minute=3)
    c = h.greeted()
    c.say(b"MAIL FROM:<a@b.example>")
    c.send(b"".join(b"RCPT TO:<%d@example.test>\r\n" % n for n in range(5)))
    assert c.received().splitlines() == [
        *[b"250 2.1.5 Ok"] * 3,
        *[b"451 4.7.1 Too many recipients, try again in 60 seconds"] * 2,
    ]
    # What was taken is taken
    c.send(b"DATA\r\ntext\r\n.\r\n")
    assert b"250 2.0.0 Ok: queued" in c.received()
    assert c.session.messages[0][1] == [f"{n}@example.test" for n in range(3)]
    h.clock.advance(60)
    c.say(b"MAIL FROM:<a@b.example>")
    assert c.say(b"RCPT TO:<b@example.test>").startswith(b"250 ")


def test_recipients_that_nobody_has_count_too(house: MakeHouse) -> None:
    h = house(recipients_per_minute=2)
    c = h.greeted()
    c.session.refuse_recipients = True
    c.say(b"MAIL FROM:<a@b.example>")
    replies = [c.say(b"RCPT TO:<b@example.test>")[:9] for _ in range(3)]
    assert replies == [b"550 5.1.1", b"550 5.1.1", b"451 4.7.1"]


def test_what_is_no_message_or_recipient_does_not_count(house: MakeHouse) -> None:
    h = house(messages_per_minute=1, recipients_per_minute=1)
    c = h.greeted()
    for line in (b"MAIL FROM:a", b"RCPT TO:<a@example.test>"):
        assert c.say(line).startswith(b"5")
    assert c.say(b"MAIL FROM:<>").startswith(b"250 ")
    assert c.say(b"MAIL FROM:<>").startswith(b"503 ")
    assert c.say(b"RCPT TO:a").startswith(b"501 ")
    assert c.say(b"RCPT TO:<a@example.test>").startswith(b"250 ")


def test_a_client_keeps_its_rates_while_it_is_away_and_loses_them_later(house: MakeHouse) -> None:
    h = house(messages_per_minute=2)
    for reply in (b"250", b"250", b"451"):
        c = h.greeted()
        assert c.say(b"MAIL FROM:<>")[:3] == reply
        leave(c)
    h.clock.advance(limits.FORGOTTEN_AFTER)
    leave(h.greeted("198.51.100.2"))
    assert len(h.limits) == 1


def test_no_limit_is_no_limit(house: MakeHouse) -> None:
    h = house()
    c = h.greeted()
    for _ in range(2000):
        assert c.say(b"MAIL FROM:<>").startswith(b"250 ")
        c.send(b"RSET\r\n" if _ < 40 else b"EHLO x\r\n")
        c.received()
    assert h.state().messages_per_minute == 2000


def test_a_rate_is_kept_over_any_minute_and_who_waits_as_told_is_taken() -> None:
    seeded = random.Random(7)
    for _ in range(50):
        limit, now, rate = seeded.randrange(1, 20), 0.0, Rate(0.0)
        taken: list[float] = []
        for _ in range(500):
            now += seeded.choice([0.0, 0.01, 1.0, 7.3, 61.0])
            wait = rate.wait(limit, now)
            if wait:
                assert 0 < wait <= 60
                now += wait
                assert rate.wait(limit, now) == 0
            taken.append(now)
            # The estimate errs by less than what comes in two minutes
            assert sum(now - 60 < at for at in taken) <= 2 * limit
            assert rate.recent(now) <= limit + 1
        # In the long run it is exact
        assert len(taken) <= (now / 60 + 2) * (limit + 1)


def test_a_steady_client_at_its_limit_is_never_refused() -> None:
    rate = Rate(0.0)
    assert not any(rate.wait(60, float(second)) for second in range(3600))


# Memory and time


def test_memory_is_bounded(house: MakeHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLIENTS_KEPT", 10)
    h = house(connections=5)
    stay = [h.limits.enter(f"198.51.100.{n}") for n in range(20)]
    for n in range(200):
        client = h.limits.enter(f"203.0.113.{n}")
        assert client is not None
        h.limits.leave(client)
    assert len(h.limits) == 30
    assert [state.client for state in h.limits.states(25)][-5:] == [
        f"203.0.113.{n}" for n in range(199, 194, -1)
    ]
    for client in stay:
        assert client is not None
        h.limits.leave(client)
    assert len(h.limits) == 10


def test_a_refused_client_without_a_connection_is_remembered(house: MakeHouse) -> None:
    h = house(connections=0)
    for _ in range(3):
        assert h.visit().received() == CROWD
    assert (h.state().refused, h.state().connections) == (3, 0)


def test_a_visit_that_is_not_counted_costs_nothing_and_ends_twice() -> None:
    for visit in (Visit(None), Visit(ClientLimits(Clock().seconds, Allowance(0, 0, 0, 0), LOOPBACK))):
        visit.enter("127.0.0.1")
        visit.message()
        visit.recipient()
        visit.leave()
        visit.leave()


# Reset


def test_a_client_that_is_reset_begins_anew_but_for_its_connections(house: MakeHouse) -> None:
    h = house(connections=2, messages_per_minute=1)
    first, other = h.greeted(), h.greeted("198.51.100.2")
    for conversation in (first, other):
        conversation.say(b"MAIL FROM:<>")
        conversation.say(b"RSET")
    assert h.limits.reset("198.51.100.1") == 1
    assert h.limits.reset("198.51.100.9") == 0
    assert first.say(b"MAIL FROM:<>").startswith(b"250 ")
    assert other.say(b"MAIL FROM:<>").startswith(b"451 ")
    h.greeted()
    assert h.visit().received() == CROWD
    assert h.limits.reset(None) == 2
    assert other.say(b"MAIL FROM:<>").startswith(b"250 ")
    assert h.visit().received() == CROWD


# Being told of


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """What was logged."""
    events: list[dict[str, Any]] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def test_each_refusal_is_counted_and_the_first_of_a_kind_is_logged(
    house: MakeHouse, logged: list[dict[str, Any]]
) -> None:
    h = house(connections=1, recipients_per_minute=1)
    c = h.greeted()
    c.say(b"MAIL FROM:<>")
    c.send(b"RCPT TO:<b@example.test>\r\n" * 4)
    over = h.visit()
    over.server.connectionLost(Failure(ConnectionDone()))
    assert c.counter.refusals == ["too many recipients in a minute"] * 3
    assert over.counter.refusals == ["too many connections of one client"]
    refusals = [
        (event["session"], event["client"], event["reason"])
        for event in logged
        if ": refused" in (event.get("log_format") or "")
    ]
    assert refusals == [
        ("session", "198.51.100.1", "too many recipients in a minute"),
        ("session", "198.51.100.1", "too many connections of one client"),
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([b"FOO"] * 3, "too many errors"),
        ([b"MAIL FROM:<>", b"RCPT TO:<a@b.example>", b"RCPT TO:<b@b.example>"], "too many recipients"),
        ([b"MAIL FROM:<> SIZE=101"], "message too big"),
        (
            [b"MAIL FROM:<>", b"RCPT TO:<a@b.example>", b"DATA", b"t\r\n.", b"MAIL FROM:<>"],
            "too many messages",
        ),
    ],
)
def test_refusals_for_other_limits_are_counted_too(tmp_path: Path, lines: list[bytes], reason: str) -> None:
    tight = Limits(message=100, errors=2, messages=1, null_sender_recipients=1)
    c = Conversation(Policy("mx", "mx.example.test", limits=tight), tmp_path)
    c.say(b"EHLO client.example.org")
    for line in lines:
        c.say(line)
    assert c.counter.refusals == [reason]


def test_reasons_are_constant_phrases(house: MakeHouse) -> None:
    h = house(messages_per_minute=1, recipients_per_minute=1, connections_per_minute=1)
    visit = Visit(h.limits)
    visit.enter("198.51.100.1")
    texts, reasons = set(), set()
    for step in range(60):
        for act in (visit.message, visit.recipient, lambda: h.limits.enter("198.51.100.1")):
            try:
                act()
            except ReplyError as refusal:
                texts.add(re.sub(r"\d+ seconds?", "N", refusal.reply.text))
                reasons.add(refusal.reply.reason)
        h.clock.advance(0.5 + step % 2)
    assert texts == {
        "Too many messages, try again in N",
        "Too many recipients, try again in N",
        "Too many connections from your address, try again in N",
    }
    assert reasons == {f"too many {what} in a minute" for what in ("messages", "recipients", "connections")}
