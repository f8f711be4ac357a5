"""Hosts that go away, say 421 or talk nonsense in the middle, and connections that are kept."""

from __future__ import annotations

from functools import partial

import pytest
from twisted.internet.defer import Deferred

from tests.conftest import reactor
from tests.smtp_client.sending import BODY, mail, one_outcome, open_to
from tests.support import rude_host
from tests.support.rude_host import EXTENSIONS, FakeTime, RudeHost, Script, polite
from tests.support.waiting import until

VERBS = ["MAIL", "RCPT", "DATA", "."]


@pytest.mark.parametrize("extensions", [EXTENSIONS, ("8BITMIME",)], ids=["pipelining", "in step"])
@pytest.mark.parametrize("verb", VERBS)
async def test_421_defers_and_ends_the_connection(verb: str, extensions: tuple[str, ...]) -> None:
    async with RudeHost(reactor, rude_host.says_421_at(verb, extensions)) as host:
        connection = await open_to(host)
        outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
        assert {outcome.verdict for outcome in outcomes} == {"deferred"}
        assert {outcome.status for outcome in outcomes} == {"4.3.2"}
        assert {str(outcome.reply) for outcome in outcomes} == {"421 4.3.2 going down"}
        assert not any(outcome.in_doubt for outcome in outcomes)
        assert not connection.usable


@pytest.mark.parametrize("verb", VERBS)
async def test_a_host_that_goes_away_defers(verb: str) -> None:
    async with RudeHost(reactor, rude_host.closes_at(verb)) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status) == ("deferred", "4.4.2")
        assert outcome.reply is None
        # Only behind the dot may it have the message
        assert outcome.in_doubt == (verb == ".")
        assert outcome.phase == {"MAIL": "mail", "RCPT": "rcpt", "DATA": "data", ".": "final-dot"}[verb]
        assert not connection.usable


async def test_refusals_stand_when_the_host_goes_away() -> None:
    async with RudeHost(reactor, rude_host.closes_at(".", recipients=["550 5.1.1 nobody"])) as host:
        connection = await open_to(host)
        outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
        assert [outcome.verdict for outcome in outcomes] == ["failed", "deferred"]
        assert [outcome.in_doubt for outcome in outcomes] == [False, True]


@pytest.mark.parametrize(
    "script", [rude_host.contradicts_itself, rude_host.talks_nonsense, rude_host.answers_twice]
)
async def test_garbage_ends_the_connection(script: Script) -> None:
    async with RudeHost(reactor, script) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status, outcome.in_doubt) == ("deferred", "4.5.0", False)
        assert not connection.usable
        await until(reactor, lambda: host.session.gone)
        assert host.session.messages == []


async def test_a_reply_to_what_was_not_yet_sent_is_none() -> None:
    async with RudeHost(reactor, rude_host.takes_what_was_not_sent) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status, outcome.phase) == ("deferred", "4.5.0", "transfer")
        assert not connection.usable


@pytest.mark.parametrize(
    ("verb", "reply", "in_doubt"),
    [("MAIL", "354 what?", False), ("DATA", "250 what?", False), (".", "354 more", True)],
)
async def test_a_reply_that_makes_no_sense_defers(verb: str, reply: str, in_doubt: bool) -> None:
    async with RudeHost(reactor, partial(polite, answers={verb: reply})) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status, outcome.in_doubt) == ("deferred", "4.5.0", in_doubt)
        assert not connection.usable


async def test_garbage_behind_the_dot_leaves_doubt() -> None:
    async with RudeHost(reactor, partial(polite, answers={".": "fine, thanks"})) as host:
        outcome = await one_outcome(host)
        assert (outcome.verdict, outcome.in_doubt) == ("deferred", True)


async def test_replies_that_drip_in_are_replies() -> None:
    async with RudeHost(reactor, rude_host.drips) as host:
        assert (await one_outcome(host)).verdict == "delivered"


async def test_waits_nine_minutes_for_the_reply_to_a_message() -> None:
    answered: Deferred[None] = Deferred()
    async with RudeHost(reactor, rude_host.answers_once(answered)) as host:
        time = FakeTime(reactor)
        connection = await open_to(host, reactor=time)
        sending = Deferred.fromCoroutine(connection.send(mail(), BODY))
        await until(reactor, lambda: host.session.messages == [BODY])
        time.advance(9 * 60)
        answered.callback(None)
        (outcome,) = await sending
        assert outcome.verdict == "delivered"
        connection.quit()


async def test_does_not_wait_eleven() -> None:
    never: Deferred[None] = Deferred()
    async with RudeHost(reactor, rude_host.answers_once(never)) as host:
        time = FakeTime(reactor)
        connection = await open_to(host, reactor=time)
        sending = Deferred.fromCoroutine(connection.send(mail(), BODY))
        await until(reactor, lambda: host.session.messages == [BODY])
        time.advance(601)
        (outcome,) = await sending
        assert (outcome.verdict, outcome.in_doubt) == ("deferred", True)
        await until(reactor, lambda: host.session.gone)


async def test_a_host_that_closes_while_idle_is_noticed() -> None:
    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        await connection.send(mail(), BODY)
        assert connection.usable
        host.session.say("421 4.4.2 idle for too long")
        host.session.lose()
        await until(reactor, lambda: not connection.usable)
        with pytest.raises(ValueError, match="not usable"):
            await connection.send(mail(), BODY)


async def test_a_connection_says_whether_it_is_alive() -> None:
    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        assert await connection.reset()
        assert connection.usable
        assert host.session.commands[-1] == "RSET"
        host.session.abort()
        await until(reactor, lambda: not connection.usable)
        assert not await connection.reset()
    async with RudeHost(reactor, partial(polite, answers={"RSET": "500 what?"})) as host:
        connection = await open_to(host)
        assert not await connection.reset()
        assert not connection.usable


async def test_a_host_gets_no_more_messages_than_it_takes() -> None:
    async with RudeHost(reactor, partial(polite, extensions=("LIMITS MAILMAX=2",))) as host:
        connection = await open_to(host)
        for usable in (True, False):
            await connection.send(mail(), BODY)
            assert connection.usable == usable
        assert await connection.reset()
        connection.quit()
        await until(reactor, lambda: host.session.gone)
        assert host.session.commands[-1] == "QUIT"
