"""One transaction with a host that has manners: what is said, and what becomes of each recipient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from relaymail.smtp.client import MailRecipient
from relaymail.smtp.client_reply import RemoteReply
from tests.conftest import reactor
from tests.smtp_client.sending import BODY, OUR_NAME, mail, open_to
from tests.support import rude_host
from tests.support.rude_host import EXTENSIONS, NAME, RudeHost, Session, polite
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
