"""How long each thing is waited for, on a clock that goes when it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from relaymail.smtp.client import ClientTimeouts, Credentials, TLSRequirement
from tests.smtp_client.memory import Conversation, failure_of, result, started
from tests.smtp_client.sending import BODY, in_parts, mail

MINUTE = 60


def test_connecting_has_30_seconds() -> None:
    talk = Conversation()
    factory: Any
    *_, factory, timeout, _bind = talk.reactor.tcpClients[0]
    assert timeout == 30
    factory.clientConnectionFailed(None, Failure(error.TimeoutError()))
    failure = failure_of(talk.connecting)
    assert (failure.phase, failure.status, failure.why) == ("connect", "4.4.1", "the host did not answer")


@pytest.mark.parametrize("arrived", [False, True])
def test_being_cancelled_is_no_failure_of_the_host(arrived: bool) -> None:
    """Else a host that stops would count a try against everyone it is just connecting to."""
    talk = Conversation()
    if arrived:
        talk.arrive()
    talk.connecting.cancel()
    with pytest.raises(CancelledError):
        result(talk.connecting)
    assert not arrived or talk.cut


def until_greeting(talk: Conversation) -> None:
    talk.arrive()


def until_ehlo(talk: Conversation) -> None:
    talk.arrive()
    talk.host("220 mx.example.test")


def until_helo(talk: Conversation) -> None:
    until_ehlo(talk)
    talk.pass_time(299)
    talk.host("500 what?")


def until_starttls(talk: Conversation) -> None:
    until_ehlo(talk)
    talk.host("250-mx.example.test", "250 STARTTLS")


def until_auth(talk: Conversation) -> None:
    until_ehlo(talk)
    talk.host("250-mx.example.test", "250 AUTH LOGIN")


def until_password(talk: Conversation) -> None:
    until_auth(talk)
    talk.pass_time(299)
    talk.host("334 VXNlcm5hbWU6")


@pytest.mark.parametrize(
    ("until", "seconds", "phase"),
    [
        (until_greeting, 5 * MINUTE, "greeting"),
        (until_ehlo, 5 * MINUTE, "ehlo"),
        (until_helo, 5 * MINUTE, "ehlo"),
        (until_starttls, 2 * MINUTE, "starttls"),
        (until_auth, 5 * MINUTE, "auth"),
        (until_password, 5 * MINUTE, "auth"),
    ],
)
def test_before_mail(until: Callable[[Conversation], None], seconds: float, phase: str) -> None:
    talk = Conversation(
        tls=TLSRequirement.opportunistic(),
        credentials=Credentials("user", "secret"),
        clear_credentials=True,
    )
    until(talk)
    talk.pass_time(seconds - 1)
    assert not talk.connecting.called
    talk.pass_time(2)
    failure = failure_of(talk.connecting)
    assert (failure.phase, failure.status) == (phase, "4.4.2")
    assert failure.why == "the host did not answer in time"
    assert talk.cut
    assert talk.timers == 0


@pytest.mark.parametrize(
    ("replies", "seconds", "phase"),
    [
        ([], 5 * MINUTE, "mail"),
        (["250 fine"], 5 * MINUTE, "rcpt"),
        (["250 fine", "250 fine"], 5 * MINUTE, "rcpt"),
        (["250 fine", "250 fine", "250 fine"], 2 * MINUTE, "data"),
        (["250 fine", "250 fine", "250 fine", "354 go"], 10 * MINUTE, "final-dot"),
    ],
)
@pytest.mark.parametrize("offered", [(), ("PIPELINING",)], ids=["in step", "pipelining"])
def test_in_a_transaction(replies: list[str], seconds: float, phase: str, offered: tuple[str, ...]) -> None:
    talk = Conversation()
    connection = talk.open(*offered)
    sending = started(connection.send(mail("a@example.test", "b@example.test"), BODY))
    for reply in replies:
        # Each reply has its own time
        talk.pass_time(110)
        talk.host(reply)
    talk.pass_time(seconds - 1)
    assert not sending.called
    talk.pass_time(2)
    outcomes = result(sending)
    assert {(outcome.verdict, outcome.status, outcome.phase) for outcome in outcomes} == (
        {("deferred", "4.4.2", phase)}
    )
    assert {outcome.in_doubt for outcome in outcomes} == {phase == "final-dot"}
    assert talk.cut
    assert talk.timers == 0


def test_a_reply_that_drips_has_no_more_time() -> None:
    talk = Conversation()
    connection = talk.open("PIPELINING")
    sending = started(connection.send(mail(), BODY))
    for _ in range(299):
        talk.pass_time(1)
        talk.protocol.dataReceived(b"250-x\r\n"[_ % 7 : _ % 7 + 1])
    assert not sending.called
    talk.pass_time(2)
    assert result(sending)[0].phase == "mail"


def test_a_reply_in_many_lines_has_no_more_time() -> None:
    talk = Conversation()
    connection = talk.open("PIPELINING")
    sending = started(connection.send(mail(), BODY))
    for _ in range(100):
        talk.pass_time(2.9)
        talk.host("250-and another thing")
    talk.pass_time(11)
    assert result(sending)[0].why == "the host did not answer in time"


class Narrow:
    """A socket that takes so much and no more."""

    def __init__(self, talk: Conversation) -> None:
        self.talk = talk
        talk.transport.write = self.write  # type: ignore[method-assign]

    def write(self, data: bytes) -> None:
        """Take it; there is no room for more."""
        type(self.talk.transport).write(self.talk.transport, data)
        if self.talk.transport.producer is not None:
            self.talk.transport.producer.pauseProducing()


def test_each_block_has_three_minutes() -> None:
    talk = Conversation()
    connection = talk.open("PIPELINING")
    Narrow(talk)
    sending = started(connection.send(mail(), in_parts([b"x" * 60_000] * 20)))
    talk.host("250 fine", "250 fine", "354 go")
    for taken in range(1, 4):
        assert len(talk.transport.value()) < 60_100 * taken + 200
        talk.pass_time(179)
        producer: Any = talk.transport.producer
        producer.resumeProducing()
    assert not sending.called
    talk.pass_time(181)
    (outcome,) = result(sending)
    assert (outcome.phase, outcome.verdict, outcome.in_doubt) == ("transfer", "deferred", False)
    assert talk.cut
    assert talk.timers == 0


def test_a_chunk_that_others_follow_has_three_minutes() -> None:
    talk = Conversation()
    connection = talk.open("PIPELINING", "CHUNKING", "BINARYMIME")
    sending = started(connection.send(mail(binary=True), in_parts([b"x" * 100_000] * 20)))
    talk.host("250 fine", "250 fine")
    talk.pass_time(179)
    talk.host("250 taken")
    talk.pass_time(179)
    assert not talk.cut
    talk.pass_time(2)
    (outcome,) = result(sending)
    assert (outcome.phase, outcome.verdict, outcome.in_doubt) == ("transfer", "deferred", False)
    assert talk.cut


def test_no_time_passes_between_messages() -> None:
    talk = Conversation()
    connection = talk.open("PIPELINING")
    sending = started(connection.send(mail(), BODY))
    talk.host("250 fine", "250 fine", "354 go")
    talk.host("250 taken")
    assert result(sending)[0].verdict == "delivered"
    talk.pass_time(3600)
    assert connection.usable
    sending = started(connection.send(mail(), BODY))
    talk.pass_time(299)
    talk.host("250 fine", "250 fine", "354 go")
    talk.host("250 taken")
    assert result(sending)[0].verdict == "delivered"


def test_behind_quit_the_host_has_five_seconds() -> None:
    talk = Conversation()
    connection = talk.open()
    connection.quit()
    assert talk.said() == b"QUIT\r\n"
    assert talk.transport.disconnecting
    talk.pass_time(4)
    assert not talk.transport.aborted
    talk.pass_time(2)
    assert talk.cut
    assert talk.timers == 0


def test_one_time_for_all() -> None:
    talk = Conversation(timeouts=ClientTimeouts.uniform(3))
    assert talk.reactor.tcpClients[0][3] == 3
    connection = talk.open("PIPELINING")
    sending = started(connection.send(mail(), BODY))
    talk.host("250 fine", "250 fine", "354 go")
    talk.pass_time(4)
    assert result(sending)[0].phase == "final-dot"


async def test_one_timeout_for_all() -> None:
    timeouts = ClientTimeouts.uniform(2.0)
    assert (timeouts.connect, timeouts.final_dot, timeouts.quit) == (2.0, 2.0, 5.0)
