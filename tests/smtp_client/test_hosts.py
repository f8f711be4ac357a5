"""Mail to hosts with manners and without, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.smtp.client import ClientTimeouts, Interrupted, MailRecipient, TLSRequirement
from relaymail.smtp.client_reply import RemoteReply
from tests.conftest import reactor
from tests.smtp_client.sending import BODY, OUR_NAME, in_parts, mail, one_outcome, open_to, refusal_of
from tests.support import rude_host
from tests.support.ipv6 import needs_ipv6
from tests.support.rude_host import EXTENSIONS, NAME, FakeTime, RudeHost, Script, Session, polite
from tests.support.waiting import pause, until


async def test_sends_a_message_in_one_round_of_commands() -> None:
    async with RudeHost(reactor, polite) as host:
        connection = await open_to(host)
        outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
        assert [(outcome.verdict, outcome.status) for outcome in outcomes] == [("delivered", "2.0.0")] * 2
        assert outcomes[0].reply == RemoteReply(250, "2.0.0", ("2.0.0 taken",))
        assert outcomes[0].dsn_taken_over
        assert connection.transactions == 1
        assert (connection.host, connection.address, connection.port) == (NAME, host.address, host.port)
        assert connection.capabilities.name == NAME
        assert connection.tls is None
        connection.quit()
        assert not connection.usable
        await until(reactor, lambda: host.session.gone)
        assert host.session.messages == [BODY]
        assert host.session.commands == [
            f"EHLO {OUR_NAME}",
            f"MAIL FROM:<sender@example.org> SIZE={len(BODY)}",
            "RCPT TO:<a@example.test>",
            "RCPT TO:<b@example.test>",
            "DATA",
            "QUIT",
        ]


async def test_the_whole_envelope_is_one_write() -> None:
    async def at_once(session: Session) -> None:
        session.say(f"220 {NAME}")
        await session.line()
        session.say(f"250-{NAME}", "250 PIPELINING")
        envelope = await session.until(b"DATA\r\n")
        assert envelope.count(b"\r\n") == 3
        session.say("250 ok", "250 ok", "250 ok", "354 go ahead")
        await session.message()
        session.say("250 ok")
        await session.end()

    async with RudeHost(reactor, at_once) as host:
        connection = await open_to(host)
        outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
        assert [outcome.verdict for outcome in outcomes] == ["delivered"] * 2
        assert not outcomes[0].dsn_taken_over


async def test_without_pipelining_every_command_waits_for_its_reply() -> None:
    async def in_step(session: Session) -> None:
        session.say(f"220 {NAME}")
        for expected in ("EHLO", "MAIL", "RCPT", "RCPT", "DATA"):
            line = await session.line()
            assert line.startswith(expected)
            await pause(reactor, 0.01)
            assert not session.has_input, "a command came before its time"
            session.say("354 go ahead" if expected == "DATA" else "250 fine")
        await session.message()
        session.say("250 taken")
        await session.end()

    async with RudeHost(reactor, in_step) as host:
        connection = await open_to(host)
        outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
        assert [outcome.verdict for outcome in outcomes] == ["delivered"] * 2


@pytest.mark.parametrize("extensions", [EXTENSIONS, ("8BITMIME",)], ids=["pipelining", "in step"])
async def test_each_recipient_has_an_outcome(extensions: tuple[str, ...]) -> None:
    async def recipient(session: Session, line: str) -> None:
        replies = {"good": "250 2.1.5 fine", "bad": "550 5.1.1 nobody", "busy": "450 4.2.1 later"}
        session.say(next(reply for name, reply in replies.items() if f"<{name}@" in line))

    async with RudeHost(reactor, partial(polite, extensions=extensions, answers={"RCPT": recipient})) as host:
        connection = await open_to(host)
        accepted: list[int] = []

        async def before_dot(indices: Sequence[int]) -> bool:
            accepted.extend(indices)
            return True

        addresses = ["bad@example.test", "good@example.test", "busy@example.test", "no address"]
        outcomes = await connection.send(mail(*addresses), BODY, before_dot)
        assert [outcome.verdict for outcome in outcomes] == ["failed", "delivered", "deferred", "failed"]
        assert [outcome.status for outcome in outcomes] == ["5.1.1", "2.0.0", "4.2.1", "5.1.3"]
        assert [outcome.phase for outcome in outcomes] == ["rcpt", "final-dot", "rcpt", "local"]
        assert str(outcomes[0].reply) == "550 5.1.1 nobody"
        assert accepted == [1]
        assert connection.usable


@pytest.mark.parametrize("extensions", [EXTENSIONS, ("8BITMIME",)], ids=["pipelining", "in step"])
@pytest.mark.parametrize(
    ("verb", "reply", "verdict", "status", "phase"),
    [
        ("MAIL", "550 5.7.1 not from you", "failed", "5.7.1", "mail"),
        ("MAIL", "451 4.3.0 not now", "deferred", "4.3.0", "mail"),
        ("RCPT", "550 5.1.1 nobody", "failed", "5.1.1", "rcpt"),
        ("RCPT", "452 4.5.3 too many", "deferred", "4.5.3", "rcpt"),
        ("DATA", "554 5.7.1 no mail", "failed", "5.7.1", "data"),
        ("DATA", "451 4.3.0 not now", "deferred", "4.3.0", "data"),
        (".", "554 5.6.0 ugly", "failed", "5.6.0", "final-dot"),
        (".", "452 full", "deferred", "4.3.1", "final-dot"),
    ],
)
async def test_a_refusal_anywhere_leaves_the_connection_usable(
    extensions: tuple[str, ...], verb: str, reply: str, verdict: str, status: str, phase: str
) -> None:
    answers: dict[str, rude_host.Answer] = {verb: reply}
    async with RudeHost(reactor, partial(polite, extensions=extensions, answers=answers)) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status, outcome.phase) == (verdict, status, phase)
        assert str(outcome.reply) == reply
        assert not outcome.in_doubt
        assert connection.usable
        del answers[verb]
        (outcome,) = await connection.send(mail(), BODY)
        assert outcome.verdict == "delivered"
        # Where the host may still have been in the first transaction it was told to begin anew
        assert ("RSET" in host.session.commands) == (verb in ("RCPT", "DATA"))
        connection.quit()


async def test_data_that_is_wanted_for_nobody_is_ended_empty() -> None:
    async def data(session: Session, line: str) -> None:
        session.say("354 whatever")
        assert await session.message() == b""
        session.say("554 5.5.1 nobody")

    answers: dict[str, rude_host.Answer] = {"RCPT": "550 5.1.1 nobody", "DATA": data}
    async with RudeHost(reactor, partial(polite, answers=answers)) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status, outcome.phase) == ("failed", "5.1.1", "rcpt")
        answers.clear()
        (outcome,) = await connection.send(mail(), BODY)
        assert outcome.verdict == "delivered"
        assert host.session.messages == [b"", BODY]


async def test_a_message_from_a_refused_sender_is_not_ended() -> None:
    async def data(session: Session, line: str) -> None:
        session.say("354 whatever")
        await session.message()

    answers: dict[str, rude_host.Answer] = {"MAIL": "550 5.7.1 not you", "RCPT": "250 fine", "DATA": data}
    async with RudeHost(reactor, partial(polite, answers=answers)) as host:
        connection = await open_to(host)
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status, outcome.phase) == ("failed", "5.7.1", "mail")
        assert not connection.usable
        await until(reactor, lambda: host.session.gone)
        assert host.session.messages == []


async def test_too_many_recipients_are_no_failure() -> None:
    replies = iter(["250 fine", "552 too many", "552 5.2.2 mailbox full", "552 5.5.3 too many"])

    async def recipient(session: Session, line: str) -> None:
        session.say(next(replies))

    async with RudeHost(reactor, partial(polite, answers={"RCPT": recipient})) as host:
        connection = await open_to(host)
        outcomes = await connection.send(mail(*[f"{name}@example.test" for name in "abcd"]), BODY)
        assert [outcome.verdict for outcome in outcomes] == ["delivered", "deferred", "failed", "deferred"]
        assert [outcome.status for outcome in outcomes] == ["2.0.0", "4.5.3", "5.2.2", "4.5.3"]


class TestBeforeMail:
    async def test_a_5xx_greeting_is_for_the_next_host(self) -> None:
        async with RudeHost(reactor, rude_host.refuses_the_greeting) as host:
            failure = await refusal_of(host)
            assert failure.permanent
            assert (failure.phase, failure.status) == ("greeting", "5.7.1")
            assert str(failure.reply) == "554 5.7.1 we do not talk to you"
            assert not failure.tls_failed
            await until(reactor, lambda: host.session.gone)

    async def test_a_busy_host_is_busy_for_now(self) -> None:
        async with RudeHost(reactor, rude_host.is_busy_at_the_greeting) as host:
            failure = await refusal_of(host)
            assert not failure.permanent
            assert (failure.phase, failure.status) == ("greeting", "4.3.2")

    async def test_says_helo_to_a_host_of_old(self) -> None:
        async with RudeHost(reactor, rude_host.knows_no_ehlo) as host:
            outcome = await one_outcome(host)
            assert outcome.verdict == "delivered"
            assert host.session.commands[1:3] == [f"HELO {OUR_NAME}", "MAIL FROM:<sender@example.org>"]

    @pytest.mark.parametrize(
        ("answers", "status", "permanent"),
        [
            ({"EHLO": "550 5.7.1 bad name", "HELO": "550 5.7.1 bad name"}, "5.7.1", True),
            ({"EHLO": "500 what?", "HELO": "450 4.7.1 later"}, "4.7.1", False),
            ({"EHLO": "451 4.3.0 later"}, "4.3.0", False),
            ({"EHLO": "354 go ahead"}, "4.5.0", False),
        ],
    )
    async def test_a_host_may_refuse_our_name(
        self, answers: dict[str, rude_host.Answer], status: str, permanent: bool
    ) -> None:
        async with RudeHost(reactor, partial(polite, answers=answers)) as host:
            failure = await refusal_of(host)
            assert (failure.phase, failure.status, failure.permanent) == ("ehlo", status, permanent)

    async def test_nobody_listens(self) -> None:
        async with RudeHost(reactor, polite) as host:
            pass
        failure = await refusal_of(host)
        assert (failure.phase, failure.status, failure.reply) == ("connect", "4.4.1", None)

    @pytest.mark.parametrize("script", [rude_host.never_ends_a_reply, rude_host.never_ends_a_line])
    async def test_an_endless_reply_is_cut(self, script: Script) -> None:
        async with RudeHost(reactor, script) as host:
            failure = await refusal_of(host)
            assert (failure.phase, failure.status) == ("ehlo", "4.5.0")
            await until(reactor, lambda: host.session.gone)

    async def test_connects_from_where_it_is_told(self) -> None:
        async with RudeHost(reactor, polite) as host:
            await open_to(host, bind_address="127.0.0.2")
            assert host.session.transport.getPeer().host == "127.0.0.2"

    @needs_ipv6
    async def test_connects_over_ipv6(self) -> None:
        async with RudeHost(reactor, polite, interface="::1") as host:
            assert (await one_outcome(host)).verdict == "delivered"


VERBS = ["MAIL", "RCPT", "DATA", "."]


class TestMidDialogue:
    @pytest.mark.parametrize("extensions", [EXTENSIONS, ("8BITMIME",)], ids=["pipelining", "in step"])
    @pytest.mark.parametrize("verb", VERBS)
    async def test_421_defers_and_ends_the_connection(self, verb: str, extensions: tuple[str, ...]) -> None:
        async with RudeHost(reactor, rude_host.says_421_at(verb, extensions)) as host:
            connection = await open_to(host)
            outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
            assert {outcome.verdict for outcome in outcomes} == {"deferred"}
            assert {outcome.status for outcome in outcomes} == {"4.3.2"}
            assert {str(outcome.reply) for outcome in outcomes} == {"421 4.3.2 going down"}
            assert not any(outcome.in_doubt for outcome in outcomes)
            assert not connection.usable

    @pytest.mark.parametrize("verb", VERBS)
    async def test_a_host_that_goes_away_defers(self, verb: str) -> None:
        async with RudeHost(reactor, rude_host.closes_at(verb)) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY)
            assert (outcome.verdict, outcome.status) == ("deferred", "4.4.2")
            assert outcome.reply is None
            # Only behind the dot may it have the message
            assert outcome.in_doubt == (verb == ".")
            assert outcome.phase == {"MAIL": "mail", "RCPT": "rcpt", "DATA": "data", ".": "final-dot"}[verb]
            assert not connection.usable

    async def test_refusals_stand_when_the_host_goes_away(self) -> None:
        async with RudeHost(reactor, rude_host.closes_at(".", recipients=["550 5.1.1 nobody"])) as host:
            connection = await open_to(host)
            outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
            assert [outcome.verdict for outcome in outcomes] == ["failed", "deferred"]
            assert [outcome.in_doubt for outcome in outcomes] == [False, True]

    @pytest.mark.parametrize(
        "script", [rude_host.contradicts_itself, rude_host.talks_nonsense, rude_host.answers_twice]
    )
    async def test_garbage_ends_the_connection(self, script: Script) -> None:
        async with RudeHost(reactor, script) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY)
            assert (outcome.verdict, outcome.status, outcome.in_doubt) == ("deferred", "4.5.0", False)
            assert not connection.usable
            await until(reactor, lambda: host.session.gone)
            assert host.session.messages == []

    async def test_a_reply_to_what_was_not_yet_sent_is_none(self) -> None:
        async with RudeHost(reactor, rude_host.takes_what_was_not_sent) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY)
            assert (outcome.verdict, outcome.status, outcome.phase) == ("deferred", "4.5.0", "transfer")
            assert not connection.usable

    @pytest.mark.parametrize(
        ("verb", "reply", "in_doubt"),
        [("MAIL", "354 what?", False), ("DATA", "250 what?", False), (".", "354 more", True)],
    )
    async def test_a_reply_that_makes_no_sense_defers(self, verb: str, reply: str, in_doubt: bool) -> None:
        async with RudeHost(reactor, partial(polite, answers={verb: reply})) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY)
            assert (outcome.verdict, outcome.status, outcome.in_doubt) == ("deferred", "4.5.0", in_doubt)
            assert not connection.usable

    async def test_garbage_behind_the_dot_leaves_doubt(self) -> None:
        async with RudeHost(reactor, partial(polite, answers={".": "fine, thanks"})) as host:
            outcome = await one_outcome(host)
            assert (outcome.verdict, outcome.in_doubt) == ("deferred", True)

    async def test_replies_that_drip_in_are_replies(self) -> None:
        async with RudeHost(reactor, rude_host.drips) as host:
            assert (await one_outcome(host)).verdict == "delivered"

    async def test_waits_nine_minutes_for_the_reply_to_a_message(self) -> None:
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

    async def test_does_not_wait_eleven(self) -> None:
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

    async def test_a_host_that_closes_while_idle_is_noticed(self) -> None:
        async with RudeHost(reactor, polite) as host:
            connection = await open_to(host)
            await connection.send(mail(), BODY)
            assert connection.usable
            host.session.say("421 4.4.2 idle for too long")
            host.session.lose()
            await until(reactor, lambda: not connection.usable)
            with pytest.raises(ValueError, match="not usable"):
                await connection.send(mail(), BODY)

    async def test_a_connection_says_whether_it_is_alive(self) -> None:
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

    async def test_a_host_gets_no_more_messages_than_it_takes(self) -> None:
        async with RudeHost(reactor, partial(polite, extensions=("LIMITS MAILMAX=2",))) as host:
            connection = await open_to(host)
            for usable in (True, False):
                await connection.send(mail(), BODY)
                assert connection.usable == usable
            assert await connection.reset()
            connection.quit()
            await until(reactor, lambda: host.session.gone)
            assert host.session.commands[-1] == "QUIT"


class TestParametersThatAreOfferedAndRefused:
    @pytest.mark.parametrize("extensions", [EXTENSIONS, EXTENSIONS[1:]], ids=["pipelining", "in step"])
    @pytest.mark.parametrize("verb", ["MAIL", "RCPT"])
    async def test_are_not_said_again(self, extensions: tuple[str, ...], verb: str) -> None:
        script = rude_host.refuses_parameters(verb, extensions)
        given = MailRecipient("user@example.test", {"NOTIFY": "FAILURE"})
        async with RudeHost(reactor, script) as host:
            connection = await open_to(host)
            for _ in range(2):
                (outcome,) = await connection.send(replace(mail(), recipients=(given,)), BODY)
                assert outcome.verdict == "delivered"
                assert not outcome.dsn_taken_over
            assert host.session.messages == [BODY, BODY]
            assert sum(line.startswith("MAIL") for line in host.session.commands) == 3
            assert connection.capabilities.offers("PIPELINING") == ("PIPELINING" in extensions)

    async def test_are_said_where_the_mail_cannot_do_without(self) -> None:
        async with RudeHost(reactor, rude_host.refuses_parameters("MAIL")) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(eight_bit=True), BODY)
            assert (outcome.verdict, outcome.status) == ("failed", "5.5.4")
            assert connection.capabilities.offers("8BITMIME")

    async def test_may_not_be_what_is_wrong(self) -> None:
        async with RudeHost(reactor, partial(polite, answers={"MAIL": "501 5.5.4 whatever you say"})) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY)
            assert (outcome.verdict, outcome.status) == ("failed", "5.5.4")
            assert connection.capabilities.offers("SIZE")
            assert sum(line.startswith("MAIL") for line in host.session.commands) == 2


class TestOurOwnSide:
    async def test_a_lost_lease_ends_the_connection_without_the_dot(self) -> None:
        async def no(accepted: Sequence[int]) -> bool:
            return False

        async with RudeHost(reactor, polite) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY, no)
            assert (outcome.verdict, outcome.phase, outcome.in_doubt) == ("deferred", "before-dot", False)
            assert not connection.usable
            await until(reactor, lambda: host.session.gone)
            assert host.session.messages == []

    async def test_the_end_waits_for_the_lease(self) -> None:
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

    async def test_a_host_that_goes_while_the_lease_is_asked_for_does_not_have_it(self) -> None:
        async def before_dot(accepted: Sequence[int]) -> bool:
            host.session.abort()
            await until(reactor, lambda: not connection._wire.idle and connection._wire._broken is not None)
            return True

        async with RudeHost(reactor, polite) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(), BODY, before_dot)
            assert (outcome.verdict, outcome.in_doubt) == ("deferred", False)

    @pytest.mark.parametrize("where", ["body", "before_dot"])
    async def test_what_breaks_here_never_ends_the_message(self, where: str) -> None:
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

    async def test_the_body_is_not_asked_for_when_nobody_wants_it(self) -> None:
        asked = False

        async def parts() -> AsyncIterator[bytes]:
            nonlocal asked
            asked = True
            yield b""

        async with RudeHost(reactor, partial(polite, answers={"RCPT": "550 5.1.1 nobody"})) as host:
            connection = await open_to(host)
            await connection.send(mail(), parts())
            assert not asked

    async def test_the_body_is_closed_when_it_is_not_read_to_its_end(self) -> None:
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

    async def test_a_message_that_needs_a_conversion_is_not_sent(self) -> None:
        async with RudeHost(reactor, partial(polite, extensions=())) as host:
            connection = await open_to(host)
            assert connection.needs(mail(eight_bit=True)).conversion == "7bit"
            with pytest.raises(ValueError, match="7bit"):
                await connection.send(mail(eight_bit=True), BODY)
            assert connection.usable

    async def test_what_fails_here_is_not_sent(self) -> None:
        async with RudeHost(reactor, polite) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(size=20_000_000), BODY)
            assert (outcome.status, outcome.phase) == ("5.3.4", "local")
            assert connection.usable
            assert connection.needs(mail(size=20_000_000)).refusals == {0: outcome}
            assert len(host.session.commands) == 1

    async def test_a_cancelled_transaction_is_dropped(self) -> None:
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

    async def test_quitting_in_the_middle_drops_the_connection(self) -> None:
        never: Deferred[None] = Deferred()
        async with RudeHost(reactor, rude_host.answers_once(never)) as host:
            connection = await open_to(host)
            sending = Deferred.fromCoroutine(connection.send(mail(), BODY))
            await until(reactor, lambda: host.session.messages == [BODY])
            connection.quit()
            (outcome,) = await sending
            assert (outcome.verdict, outcome.in_doubt) == ("deferred", True)
            await until(reactor, lambda: host.session.gone)

    async def test_a_host_that_does_not_close_behind_quit_is_not_waited_for(self) -> None:
        async with RudeHost(reactor, polite) as host:
            connection = await open_to(host)
            connection.quit()
            connection.quit()
            connection.abort()
            await until(reactor, lambda: host.session.gone)


class TestLargeMessages:
    async def test_parts_are_asked_for_as_the_host_takes_them(self) -> None:
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

    async def test_a_host_that_refuses_in_the_middle_defers(self) -> None:
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

    async def test_a_host_that_takes_nothing_is_given_three_minutes(self) -> None:
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


class TestChunks:
    extensions = (*EXTENSIONS, "CHUNKING", "BINARYMIME")

    @pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 1_000_000])
    async def test_binary_mail_goes_as_it_is(self, size: int) -> None:
        body = (b"\r.\n\0\xff\r\n.\r\n" * (size // 10 + 1))[:size]
        async with RudeHost(reactor, partial(polite, extensions=self.extensions)) as host:
            connection = await open_to(host)
            for _ in range(2):
                parts = in_parts([body[at : at + 70_000] for at in range(0, size, 70_000)])
                (outcome,) = await connection.send(mail(binary=True), parts)
                assert outcome.verdict == "delivered"
            assert host.session.messages == [body, body]
            assert "BODY=BINARYMIME" in host.session.commands[1]
            assert host.session.commands[3].startswith("BDAT ")
            assert "RSET" not in host.session.commands

    async def test_the_last_chunk_waits_for_the_lease(self) -> None:
        async def no(accepted: Sequence[int]) -> bool:
            return False

        async with RudeHost(reactor, partial(polite, extensions=self.extensions)) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(binary=True), b"x" * 600_000, no)
            assert outcome.phase == "before-dot"
            await until(reactor, lambda: host.session.gone)
            assert host.session.messages == []
            assert sum(line.startswith("BDAT") for line in host.session.commands) == 2

    @pytest.mark.parametrize(
        ("answer", "verdict", "status"),
        [("552 5.3.4 enough", "failed", "5.3.4"), ("354 what?", "deferred", "4.5.0")],
    )
    async def test_a_chunk_that_others_follow_may_be_refused(
        self, answer: str, verdict: str, status: str
    ) -> None:
        async def refuse(session: Session, line: str) -> None:
            await session.chunk(line)
            session.say(answer)

        answers: dict[str, rude_host.Answer] = {"BDAT": refuse}
        async with RudeHost(reactor, partial(polite, extensions=self.extensions, answers=answers)) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(binary=True), b"x" * 600_000)
            assert (outcome.verdict, outcome.status, outcome.phase) == (verdict, status, "transfer")
            assert not outcome.in_doubt
            assert sum(line.startswith("BDAT") for line in host.session.commands) == 1
            if verdict == "failed":
                answers.clear()
                (outcome,) = await connection.send(mail(binary=True), b"x")
                assert outcome.verdict == "delivered"
                assert "RSET" in host.session.commands

    async def test_a_host_that_lies_about_chunks_refuses_them(self) -> None:
        async with RudeHost(reactor, rude_host.offers_chunking_and_refuses_it) as host:
            connection = await open_to(host)
            (outcome,) = await connection.send(mail(binary=True), b"x")
            assert (outcome.verdict, outcome.phase) == ("failed", "final-dot")


async def test_starttls_that_is_refused_is_done_without() -> None:
    async with RudeHost(reactor, rude_host.offers_starttls_and_refuses_it) as host:
        assert (await one_outcome(host)).verdict == "delivered"
        failure = await refusal_of(host, TLSRequirement.encrypted())
        assert (failure.tls_problem, failure.status, failure.permanent) == ("refused", "4.7.4", False)


async def test_one_timeout_for_all() -> None:
    timeouts = ClientTimeouts.uniform(2.0)
    assert (timeouts.connect, timeouts.final_dot, timeouts.quit) == (2.0, 2.0, 5.0)
