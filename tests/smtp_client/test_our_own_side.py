"""What ends a transaction from our side: a lost lease, a body that breaks, a call that is cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.smtp.client import Interrupted
from tests.conftest import reactor
from tests.smtp_client.sending import BODY, mail, open_to
from tests.support import rude_host
from tests.support.rude_host import RudeHost, Session, polite
from tests.support.waiting import pause, until


async def test_a_lost_lease_ends_the_connection_without_the_dot() -> None:
    async def no(accepted: Sequence[int]) -> bool:
        return False

    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY, no)
        assert (outcome.verdict, outcome.phase, outcome.in_doubt) == ("deferred", "before-dot", False)
        assert not connection.usable
        await until(reactor, lambda: host.session.gone)
        assert host.session.messages == []


async def test_the_end_waits_for_the_lease() -> None:
    asked: Deferred[None] = Deferred()
    answer: Deferred[bool] = Deferred()

    async def before_dot(accepted: Sequence[int]) -> bool:
        asked.callback(None)
        return await answer

    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        sending = Deferred.fromCoroutine(connection.send(mail(), BODY, before_dot))
        await asked
        await pause(reactor, 0.02)
        assert host.session.messages == []
        answer.callback(True)
        (outcome,) = await sending
        assert outcome.verdict == "delivered"
        assert host.session.messages == [BODY]


async def test_a_host_that_goes_while_the_lease_is_asked_for_does_not_have_it() -> None:
    async def before_dot(accepted: Sequence[int]) -> bool:
        host.session.abort()
        await until(reactor, lambda: not connection._wire.idle and connection._wire._broken is not None)
        return True

    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY, before_dot)
        assert (outcome.verdict, outcome.in_doubt) == ("deferred", False)


@pytest.mark.parametrize("where", ["body", "before_dot"])
async def test_what_breaks_here_never_ends_the_message(where: str) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"Subject: x\r\n"
        if where == "body":
            raise KeyError(where)

    async def before_dot(accepted: Sequence[int]) -> bool:
        raise KeyError(where)

    replies = iter(["550 5.1.1 nobody", "250 2.1.5 fine"])

    async def recipient(session: Session, line: str) -> None:
        session.say(next(replies))

    async with RudeHost(reactor, partial(polite, answers={"RCPT": recipient})) as host:
        connection = await open_to(host)
        with pytest.raises(Interrupted) as raised:
            await connection.send(
                mail("a@example.test", "b@example.test"),
                parts(),
                before_dot,
            )
        assert isinstance(raised.value.__cause__, KeyError)
        assert [outcome.verdict for outcome in raised.value.outcomes] == ["failed", "deferred"]
        assert [outcome.status for outcome in raised.value.outcomes] == ["5.1.1", "4.3.0"]
        assert not connection.usable
        await until(reactor, lambda: host.session.gone)
        assert host.session.messages == []


async def test_the_body_is_not_asked_for_when_nobody_wants_it() -> None:
    asked = False

    async def parts() -> AsyncIterator[bytes]:
        nonlocal asked
        asked = True
        yield b""

    async with RudeHost(reactor, partial(polite, answers={"RCPT": "550 5.1.1 nobody"})) as host:
        connection = await open_to(host)
        await connection.send(mail(), parts())
        assert not asked


async def test_the_body_is_closed_when_it_is_not_read_to_its_end() -> None:
    closed = False

    async def parts() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed = True

    async def data(session: Session, line: str) -> None:
        session.say("354 go ahead")
        await session.octets(1000)
        session.abort()

    async with RudeHost(reactor, partial(polite, answers={"DATA": data})) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), parts())
        assert (outcome.verdict, outcome.phase) == ("deferred", "transfer")
        assert closed


async def test_a_message_that_needs_a_conversion_is_not_sent() -> None:
    async with RudeHost(reactor, partial(polite, extensions=())) as host:
        connection = await open_to(host)
        assert connection.needs(mail(eight_bit=True)).conversion == "7bit"
        with pytest.raises(ValueError, match="7bit"):
            await connection.send(mail(eight_bit=True), BODY)
        assert connection.usable


async def test_what_fails_here_is_not_sent() -> None:
    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(size=20_000_000), BODY)
        assert (outcome.status, outcome.phase) == ("5.3.4", "local")
        assert connection.usable
        assert connection.needs(mail(size=20_000_000)).refusals == {0: outcome}
        assert len(host.session.commands) == 1


async def test_a_cancelled_transaction_is_dropped() -> None:
    never: Deferred[None] = Deferred()
    async with RudeHost(reactor, rude_host.answers_once(never)) as host:
        connection = await open_to(host)
        sending = Deferred.fromCoroutine(connection.send(mail(), BODY))
        await until(reactor, lambda: host.session.messages == [BODY])
        assert not connection.usable
        sending.cancel()
        with pytest.raises(CancelledError):
            await sending
        await until(reactor, lambda: host.session.gone)


async def test_quitting_in_the_middle_drops_the_connection() -> None:
    never: Deferred[None] = Deferred()
    async with RudeHost(reactor, rude_host.answers_once(never)) as host:
        connection = await open_to(host)
        sending = Deferred.fromCoroutine(connection.send(mail(), BODY))
        await until(reactor, lambda: host.session.messages == [BODY])
        connection.quit()
        (outcome,) = await sending
        assert (outcome.verdict, outcome.in_doubt) == ("deferred", True)
        await until(reactor, lambda: host.session.gone)


async def test_a_host_that_does_not_close_behind_quit_is_not_waited_for() -> None:
    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        connection.quit()
        connection.quit()
        connection.abort()
        await until(reactor, lambda: host.session.gone)
