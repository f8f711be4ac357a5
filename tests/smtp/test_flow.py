"""The engine under pressure: slow readers, full buffers, half-closed connections, closing, handshakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred

from relaymail.smtp.policy import Limits, Policy
from relaymail.smtp.session import TLSFacts, client_of
from tests.smtp.memory import Conversation

MX = Policy("mx", "mx.example.test", strict_newlines=True)
SUBMISSION = Policy("submission", "mail.example.test", starttls=True, authentication=True)
SMTPS = Policy("submissions", "mail.example.test", implicit_tls=True, authentication=True)

ENVELOPE = b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\n"

Talk = Callable[..., Conversation]


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """Begins a conversation; takes the greeting and the reply to EHLO."""

    def begin(policy: Policy = MX) -> Conversation:
        conversation = Conversation(policy, tmp_path, object())
        conversation.send(b"EHLO client.example.org\r\n")
        conversation.received()
        return conversation

    return begin


def test_replies_to_a_flood_of_commands_are_not_piled_up(talk: Talk) -> None:
    t = talk()
    write = t.transport.write

    def full(data: bytes) -> None:
        write(data)
        t.server.pauseProducing()

    t.transport.write = full  # type: ignore[method-assign]
    t.send(b"EHLO x\r\n" * 10_000)
    assert len(t.received()) < 64 * 1024
    assert t.transport.producerState == "paused"


def test_all_that_was_pipelined_is_answered_although_the_client_reads_late_and_sends_no_more(
    talk: Talk,
) -> None:
    t = talk()
    t.server.pauseProducing()
    t.send(ENVELOPE + b"DATA\r\ntext\r\n.\r\nQUIT\r\n")
    t.server.readConnectionLost()
    assert not t.closing
    t.server.resumeProducing()
    assert t.received().endswith(b"250 2.0.0 Ok: queued as id1\r\n221 2.0.0 Bye\r\n")
    assert t.closing


def test_a_client_that_half_closes_in_the_middle_of_a_message_is_left(talk: Talk) -> None:
    t = talk()
    t.send(ENVELOPE + b"DATA\r\ntext\r\n")
    t.server.readConnectionLost()
    assert t.closing
    assert t.session.messages == []


def test_a_connection_closed_while_input_is_held_back_is_read_again(talk: Talk) -> None:
    """TLS ends with an answer of the client, which must be read."""
    t = talk()
    t.session.storing = Deferred()
    t.send(ENVELOPE + b"DATA\r\ntext\r\n.\r\n" + b"QUIT\r\n" + b"x" * 200_000)
    assert t.transport.producerState == "paused"
    t.session.storing.callback(None)
    assert t.closing
    assert t.transport.producerState == "producing"


def test_a_data_that_fails_unforeseen_closes_before_its_body_runs(talk: Talk) -> None:
    t = talk()

    def broken() -> None:
        raise RuntimeError("a bug")

    t.server.dialogue._new_content = broken  # type: ignore[assignment]
    t.send(ENVELOPE + b"DATA\r\nRSET\r\nMAIL FROM:<evil@example.org>\r\n.\r\n")
    assert t.received().endswith(b"451 4.3.0 Temporary server error, try again later\r\n")
    assert t.closing


def test_the_pause_an_error_costs_ends_with_the_connection(talk: Talk) -> None:
    t = talk(replace(MX, limits=Limits(free_errors=0)))
    t.send(b"NOPE\r\n")
    t.server.connectionLost()
    assert t.clock.getDelayedCalls() == []


def test_a_connection_lost_while_its_message_is_stored_leaves_nothing_behind(talk: Talk) -> None:
    t = talk()
    t.session.storing = Deferred()
    t.send(ENVELOPE + b"DATA\r\ntext\r\n.\r\n")
    t.received()
    t.server.connectionLost()
    assert t.clock.getDelayedCalls() == []
    t.session.storing.callback(None)
    assert len(t.session.messages) == 1
    assert t.received() == b""
    assert t.clock.getDelayedCalls() == []


def test_a_client_that_takes_no_replies_is_cut_in_the_end(talk: Talk) -> None:
    t = talk()
    t.server.pauseProducing()
    t.clock.advance(300)
    assert t.closing
    assert not t.transport.aborted
    t.clock.advance(30)
    assert t.transport.aborted


# Handshakes


def test_a_starttls_handshake_that_takes_too_long_is_cut_without_a_word(talk: Talk) -> None:
    t = talk(SUBMISSION)
    assert t.say(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
    t.clock.advance(60)
    assert t.transport.aborted
    assert t.received() == b""


@pytest.mark.parametrize("policy", [SUBMISSION, SMTPS])
def test_draining_during_a_handshake_is_told_behind_it(talk: Talk, tmp_path: Path, policy: Policy) -> None:
    t = Conversation(policy, tmp_path, object())
    if not policy.implicit_tls:
        t.say(b"EHLO client.example.org")
        t.say(b"STARTTLS")
    t.server.drain()
    assert t.received() == b""
    assert not t.closing
    t.server.handshakeCompleted()
    if not policy.implicit_tls:
        t.send(b"EHLO client.example.org\r\n")
    assert t.received() == b"421 4.3.2 Service shutting down, try again later\r\n"
    assert t.closing


def test_what_was_said_in_clear_is_forgotten_under_tls(talk: Talk) -> None:
    t = talk(SUBMISSION)
    t.send(ENVELOPE)
    assert t.received() == b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
    t.say(b"STARTTLS")
    t.server.handshakeCompleted()
    assert t.say(b"DATA") == b"503 5.5.1 Send EHLO first\r\n"
    assert t.say(b"MAIL FROM:<>") == b"503 5.5.1 Send EHLO first\r\n"
    assert t.say(b"STARTTLS") == b"554 5.5.1 TLS already active\r\n"
    assert b"STARTTLS" not in t.say(b"EHLO client.example.org")


# AUTH lines


@pytest.fixture
def secure(talk: Talk) -> Conversation:
    t = talk(SUBMISSION)
    t.peer.tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    t.say(b"EHLO client.example.org")
    return t


def test_an_auth_command_that_is_too_long_is_told_so(secure: Conversation) -> None:
    answer = b"500 5.5.6 Authentication exchange line is too long\r\n"
    assert secure.say(b"AUTH PLAIN " + b"A" * 13_000) == answer
    secure.send(b"AUTH PLAIN " + b"A" * 13_000)
    secure.send(b"A" * 13_000)
    assert secure.say(b"A") == answer
    assert secure.say(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_a_bare_newline_ends_an_auth_exchange(secure: Conversation) -> None:
    secure.say(b"AUTH LOGIN")
    secure.send(b"dXNlcg==\n")
    assert secure.received() == b"500 5.5.2 Lines must end with CRLF\r\n"
    assert secure.say(b"NOOP") == b"250 2.0.0 Ok\r\n"


@pytest.mark.parametrize("response", [b"=", b"YWJj", b"AP8A", b"AGE=", b"AGEAYgBj", b"YgBhAHJpZ2h0"])
def test_a_response_that_is_no_plain_counts_as_a_failed_login(secure: Conversation, response: bytes) -> None:
    for wait in (1, 2, 4):
        assert secure.say(b"AUTH PLAIN " + response) == b""
        secure.clock.advance(wait)
        assert secure.received() == b"535 5.7.8 Authentication credentials invalid\r\n"
    assert secure.say(b"AUTH PLAIN " + response).startswith(b"421 4.7.0 ")
    assert secure.session.logins == []


# Sessions without EHLO


def test_smtputf8_is_not_for_helo_sessions(talk: Talk) -> None:
    t = talk()
    t.say(b"HELO client.example.org")
    assert t.say(b"MAIL FROM:<a@example.org> SMTPUTF8").startswith(b"555 5.5.4 ")
    assert t.say(b"MAIL FROM:<a@example.org>") == b"250 2.1.0 Ok\r\n"
    assert t.say("RCPT TO:<é@example.test>".encode()) == b"553 5.6.7 SMTPUTF8 required\r\n"


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (IPv4Address("TCP", "192.0.2.1", 25), ("192.0.2.1", 25)),
        (IPv6Address("TCP", "2001:db8::1", 25), ("2001:db8::1", 25)),
        (IPv6Address("TCP", "fe80::1%eth0", 25), ("fe80::1", 25)),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 25), ("192.0.2.1", 25)),
        (UNIXAddress(b"/run/relaymail"), ("127.0.0.1", 0)),
    ],
)
def test_a_client_has_one_spelling(address: object, client: tuple[str, int]) -> None:
    assert client_of(address) == client
