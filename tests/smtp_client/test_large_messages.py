"""Messages of many MB, to hosts that take them slowly, in part or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from twisted.internet.defer import Deferred

from tests.conftest import reactor
from tests.smtp_client.sending import in_parts, mail, open_to
from tests.support.rude_host import FakeTime, RudeHost, Session, polite
from tests.support.waiting import pause, until


async def test_parts_are_asked_for_as_the_host_takes_them() -> None:
    produced = 0
    go_on: Deferred[None] = Deferred()

    async def parts() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(200):
            produced += 1
            yield b"x" * 254_000 + b"\r\n"

    async def data(session: Session, line: str) -> None:
        session.transport.pauseProducing()
        session.say("354 go ahead")
        await go_on
        session.transport.resumeProducing()
        taken = 0
        while not session.ends_with(b"\r\n.\r\n"):
            taken += await session.skip()
        assert taken == 200 * 254_002 + 3
        session.say("250 taken")

    async with RudeHost(reactor, partial(polite, answers={"DATA": data})) as host:
        connection = await open_to(host)
        sending = Deferred.fromCoroutine(connection.send(mail(), parts()))
        await until(reactor, lambda: produced > 0)
        await pause(reactor, 0.1)
        # What a loopback socket holds is a few MB, on some machines many; all of it is 50
        assert produced < 150
        go_on.callback(None)
        (outcome,) = await sending
        assert outcome.verdict == "delivered"


async def test_a_host_that_refuses_in_the_middle_defers() -> None:
    async def data(session: Session, line: str) -> None:
        session.say("354 go ahead")
        await session.octets(100_000)
        session.say("552 5.3.4 that is enough")

    async with RudeHost(reactor, partial(polite, answers={"DATA": data})) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), in_parts([b"x" * 1_000_000] * 20))
        assert (outcome.verdict, outcome.phase) == ("deferred", "transfer")
        assert str(outcome.reply) == "552 5.3.4 that is enough"
        assert not connection.usable


async def test_a_host_that_takes_nothing_is_given_three_minutes() -> None:
    async def data(session: Session, line: str) -> None:
        session.transport.pauseProducing()
        session.say("354 go ahead")
        await session.end()

    async with RudeHost(reactor, partial(polite, answers={"DATA": data})) as host:
        time = FakeTime(reactor)
        connection = await open_to(host, reactor=time)
        sending = Deferred.fromCoroutine(connection.send(mail(), in_parts([b"x" * 1_000_000] * 50)))
        await until(reactor, lambda: connection._wire._paused)
        await pause(reactor, 0.05)
        time.advance(179)
        assert not sending.called
        time.advance(2)
        (outcome,) = await sending
        assert (outcome.verdict, outcome.phase, outcome.in_doubt) == ("deferred", "transfer", False)
