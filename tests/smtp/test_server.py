"""The engine: order, framing, replies, timeouts."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from relaymail.smtp import reply
from relaymail.smtp.policy import MINUTE, Limits, Policy
from relaymail.smtp.reply import ReplyError
from relaymail.smtp.session import TLSFacts
from tests.smtp.memory import Conversation

MX = Policy("mx", "mx.example.test", strict_newlines=True)
SUBMISSION = Policy(
    "submission", "mail.example.test", starttls=True, authentication=True, authentication_required=True
)

TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")

Talk = Callable[..., Conversation]


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """Begins a conversation and takes the greeting and the reply to EHLO."""

    def begin(policy: Policy = MX, *, hello: bool = True, tls: object = None) -> Conversation:
        conversation = Conversation(policy, tmp_path, tls)
        assert conversation.received() == f"220 {policy.server_name} ESMTP relaymail\r\n".encode()
        if hello:
            conversation.say(b"EHLO client.example.org")
        return conversation

    return begin


def under_tls(conversation: Conversation) -> Conversation:
    """As if the handshake had been."""
    conversation.peer.tls = TLS
    conversation.say(b"EHLO client.example.org")
    return conversation


def plain(login: str, password: str) -> bytes:
    return base64.b64encode(f"\0{login}\0{password}".encode())


def test_a_message_is_taken_and_its_id_returned(talk: Talk) -> None:
    t = talk()
    assert t.say(b"MAIL FROM:<a@example.org>") == b"250 2.1.0 Ok\r\n"
    assert t.say(b"RCPT TO:<b@example.test>") == b"250 2.1.5 Ok\r\n"
    assert t.say(b"DATA").startswith(b"354 ")
    assert t.say(b"Subject: x\r\n\r\n..text\r\n.") == b"250 2.0.0 Ok: queued as id1\r\n"
    assert t.session.messages == [("a@example.org", ["b@example.test"], b"Subject: x\r\n\r\n.text\r\n")]
    assert t.say(b"QUIT") == b"221 2.0.0 Bye\r\n"
    assert t.closing


def test_ehlo_lists_what_the_listener_can_in_one_write(talk: Talk) -> None:
    t = talk(hello=False)
    writes: list[bytes] = []
    t.transport.write = writes.append  # type: ignore[method-assign]
    t.send(b"EHLO client.example.org\r\n")
    assert writes == [
        b"250-mx.example.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
        b"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250-DSN\r\n250 LIMITS RCPTMAX=1000\r\n"
    ]


def test_auth_is_offered_under_tls_only(talk: Talk) -> None:
    t = talk(SUBMISSION, hello=False, tls=object())
    before = t.say(b"EHLO client.example.org")
    assert b"STARTTLS" in before
    assert b"AUTH" not in before
    t.peer.tls = TLS
    after = t.say(b"EHLO client.example.org")
    assert b"250 AUTH PLAIN LOGIN\r\n" in after
    assert b"STARTTLS" not in after


PIPELINE = (
    b"EHLO client.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\n"
    b"RCPT TO:<bad\r\nRCPT TO:<c@example.test> X=1\r\nDATA\r\nHello\r\n..\r\n.\r\nRSET\r\nNOPE\r\n"
    b"MAIL FROM:<>\r\nDATA\r\nRCPT TO:<d@example.test>\r\nDATA\r\n.\r\nQUIT\r\nNOOP\r\n"
)


def test_a_pipelined_session_is_answered_in_order(talk: Talk) -> None:
    t = talk(hello=False)
    t.send(PIPELINE.replace(b"DATA\r\nRCPT", b"RCPT"))
    codes = [line[:3] for line in t.received().split(b"\r\n") if line[3:4] == b" "]
    assert codes == [
        b"250",
        *[b"250", b"250", b"501", b"555", b"354", b"250"],
        *[b"250", b"500", b"250", b"250", b"354", b"250", b"221"],
    ]
    assert [m[1] for m in t.session.messages] == [["b@example.test"], ["d@example.test"]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, len(PIPELINE)), max_size=12))
def test_the_answers_do_not_depend_on_packets(talk: Talk, cuts: list[int]) -> None:
    whole = talk(hello=False)
    whole.send(PIPELINE.replace(b"DATA\r\nRCPT", b"RCPT"))
    data = PIPELINE.replace(b"DATA\r\nRCPT", b"RCPT")
    cut = talk(hello=False)
    places = sorted({0, len(data), *(min(c, len(data)) for c in cuts)})
    for a, b in itertools.pairwise(places):
        cut.send(data[a:b])
    assert cut.received() == whole.received()
    assert cut.session.messages == whole.session.messages


def test_a_slow_lookup_keeps_the_order_of_pipelined_commands(talk: Talk) -> None:
    t = talk()
    waiting: list[Deferred[None]] = []

    async def late() -> None:
        waiting.append(Deferred())
        await waiting[-1]

    t.session.late = late
    t.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    assert t.received() == b""
    waiting[0].callback(None)
    assert t.received() == b"250 2.1.0 Ok\r\n"
    assert len(waiting) == 2
    waiting[1].callback(None)
    assert [line[:3] for line in t.received().split(b"\r\n")] == [b"250", b"354", b"250", b""]


def test_nothing_is_answered_before_the_message_is_durable(talk: Talk) -> None:
    t = talk()
    t.session.storing = Deferred()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\nNOOP\r\n")
    assert t.received().count(b"\r\n") == 3
    t.session.storing.callback(None)
    assert t.received() == b"250 2.0.0 Ok: queued as id1\r\n250 2.0.0 Ok\r\n"


def test_an_unforeseen_error_is_temporary_and_the_session_goes_on(talk: Talk) -> None:
    t = talk()
    t.session.error = RuntimeError("a bug")
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    assert t.received().endswith(b"451 4.3.0 Temporary server error, try again later\r\n")
    assert t.counter.failures == 1
    t.session.error = None
    assert t.say(b"MAIL FROM:<>") == b"250 2.1.0 Ok\r\n"


def test_a_store_that_takes_too_long_is_given_up_with_451(talk: Talk) -> None:
    t = talk()
    t.session.storing = Deferred()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    t.received()
    t.clock.pump([MINUTE, MINUTE + 1])
    assert t.received() == b"451 4.3.0 Temporary server error, try again later\r\n"
    assert t.say(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_a_body_behind_a_refused_data_never_runs_as_commands(talk: Talk) -> None:
    t = talk()
    t.session.refuse_recipients = True
    t.send(
        b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\nRSET\r\nMAIL FROM:<evil@example.org>\r\n.\r\n"
    )
    assert t.received().endswith(b"550 5.1.1 No such mailbox\r\n554 5.5.1 No valid recipients\r\n")
    assert t.closing


def test_a_message_with_a_bare_newline_is_refused_on_the_mx_and_the_session_stays_in_step(talk: Talk) -> None:
    t = talk()
    t.send(
        b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\na\n.\nMAIL FROM:<x@y.example>\r\n.\r\nNOOP\r\n"
    )
    assert t.received().endswith(b"550 5.5.2 Bare LF or CR not allowed\r\n250 2.0.0 Ok\r\n")
    assert t.session.messages == []


def test_a_message_over_the_limit_is_read_to_its_end_and_refused(talk: Talk) -> None:
    t = talk(replace(MX, limits=Limits(message=1000)))
    assert t.say(b"MAIL FROM:<a@example.org> SIZE=1001") == b"552 5.3.4 Message too big\r\n"
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n" + b"x" * 70 + b"\r\n")
    t.send((b"x" * 70 + b"\r\n") * 20 + b".\r\nNOOP\r\n")
    assert t.received().endswith(b"552 5.3.4 Message too big\r\n250 2.0.0 Ok\r\n")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"", b"500 5.5.2 Command not recognized"),
        (b"FROB", b"500 5.5.2 Command not recognized"),
        (b"NO\x00OP", b"500 5.5.2 Command not recognized"),
        (b"EXPN list", b"502 5.5.1 Command not implemented"),
        (b"BDAT x", b"501 5.5.4 Syntax: BDAT octets [LAST]"),
        (b"HELO", b"501 5.5.4 Syntax: HELO hostname"),
        (b"MAIL", b"501 5.5.4 Syntax: MAIL FROM:<address>"),
        (b"MAIL FROM:a@example.org", b"501 5.5.4 Syntax: MAIL FROM:<address>"),
        (b"MAIL FROM:<a@example.org> FOO=1", b"555 5.5.4 Unsupported option: FOO"),
        (b"MAIL FROM:<a@@example.org>", b"501 5.1.7 Bad sender address: "),
        (b"MAIL FROM:<\xc3\xa9@example.org>", b"553 5.6.7 SMTPUTF8 required"),
        (b"MAIL FROM:<" + b"x" * 65 + b"@example.org>", b"501 5.1.7 Bad sender address: the local part"),
        (b"RCPT TO:<b@example.test>", b"503 5.5.1 Send MAIL first"),
        (b"DATA", b"503 5.5.1 Send MAIL first"),
        (b"VRFY b", b"252 2.0.0 "),
        (b"HELP", b"214 2.0.0 "),
        (b"NOOP", b"250 2.0.0 Ok"),
        (b"RSET", b"250 2.0.0 Ok"),
        (b"STARTTLS", b"502 5.5.1 Command not implemented"),
        (b"AUTH PLAIN AAAA", b"502 5.5.1 Command not implemented"),
        (b"x" * 3000, b"500 5.5.2 Line too long"),
    ],
)
def test_each_command_has_its_reply(talk: Talk, line: bytes, answer: bytes) -> None:
    assert talk().say(line).startswith(answer)


def test_mail_wants_ehlo_first_and_only_one_sender(talk: Talk) -> None:
    t = talk(hello=False)
    assert t.say(b"MAIL FROM:<>") == b"503 5.5.1 Send EHLO first\r\n"
    t.say(b"EHLO client.example.org")
    t.say(b"MAIL FROM:<>")
    assert t.say(b"MAIL FROM:<>") == b"503 5.5.1 Sender already given\r\n"
    assert t.say(b"DATA") == b"503 5.5.1 Send RCPT first\r\n"


def test_a_line_that_ends_with_a_bare_lf_is_refused_not_run(talk: Talk) -> None:
    t = talk()
    t.send(b"MAIL FROM:<a@example.org>\nNOOP\r\n")
    assert t.received() == b"500 5.5.2 Lines must end with CRLF\r\n250 2.0.0 Ok\r\n"
    assert t.say(b"RCPT TO:<b@example.test>").startswith(b"503 ")


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00", b"POST / HTTP/1.0"])
def test_another_protocol_is_sent_away(talk: Talk, first: bytes) -> None:
    t = talk(hello=False)
    assert t.say(first).startswith(b"221 ")
    assert t.closing


def test_null_sender_mail_has_one_recipient(talk: Talk) -> None:
    t = talk()
    t.say(b"MAIL FROM:<>")
    t.say(b"RCPT TO:<b@example.test>")
    assert t.say(b"RCPT TO:<c@example.test>") == b"452 4.5.3 Too many recipients\r\n"


def test_recipients_over_the_limit_are_deferred_and_the_accepted_ones_stay(talk: Talk) -> None:
    t = talk(replace(MX, limits=Limits(recipients=2)))
    t.say(b"MAIL FROM:<a@example.org>")
    answers = [t.say(f"RCPT TO:<r{n}@example.test>".encode())[:3] for n in range(3)]
    assert answers == [b"250", b"250", b"452"]
    t.send(b"DATA\r\n.\r\n")
    assert t.session.messages[0][1] == ["r0@example.test", "r1@example.test"]


def test_errors_cost_a_second_each_and_then_the_session(talk: Talk) -> None:
    t = talk()
    for _ in range(4):
        assert t.say(b"FROB").startswith(b"500 ")
    assert t.say(b"FROB") == b""
    t.clock.advance(1)
    assert t.received().startswith(b"500 ")
    for _ in range(10):
        t.say(b"FROB")
        t.clock.advance(1)
    t.received()
    assert t.say(b"FROB").endswith(b"421 4.7.0 Too many errors\r\n")
    assert t.closing


def test_the_51st_noop_counts_as_an_error(talk: Talk) -> None:
    t = talk()
    for _ in range(54):
        assert t.say(b"NOOP") == b"250 2.0.0 Ok\r\n"
    assert t.say(b"NOOP") == b""


def test_an_idle_client_is_told_and_closed(talk: Talk) -> None:
    t = talk()
    t.clock.advance(299)
    assert not t.closing
    t.say(b"NOOP")
    t.clock.advance(299)
    assert not t.closing
    t.clock.advance(1)
    assert t.received() == b"421 4.4.2 Timed out waiting for input\r\n"
    assert t.closing


def test_a_message_that_trickles_is_given_up(talk: Talk) -> None:
    t = talk()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
    t.received()
    for _ in range(70):
        t.clock.advance(1)
        t.send(b"x")
    t.clock.advance(1)
    assert t.received() == b"421 4.4.2 Timed out waiting for input\r\n"


def test_a_message_may_take_as_long_as_it_moves(talk: Talk) -> None:
    t = talk()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
    for _ in range(120):
        t.clock.advance(30)
        t.send((b"x" * 998 + b"\r\n") * 16)
    t.received()
    t.send(b".\r\n")
    t.clock.advance(0)
    assert not t.closing


def test_a_session_ends_after_two_hours(talk: Talk) -> None:
    t = talk()
    for _ in range(50):
        t.clock.advance(144)
        t.say(b"HELP")
    assert t.closing


def test_a_half_closed_client_still_gets_its_250(talk: Talk) -> None:
    t = talk()
    t.session.storing = Deferred()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    t.server.readConnectionLost()
    assert not t.closing
    t.session.storing.callback(None)
    assert t.received().endswith(b"250 2.0.0 Ok: queued as id1\r\n")
    assert t.closing


def test_reading_stops_while_the_client_does_not_take_its_replies(talk: Talk) -> None:
    t = talk()
    t.server.pauseProducing()
    t.send(b"NOOP\r\n" * 10)
    assert t.received() == b""
    assert t.transport.producerState == "paused"
    t.server.resumeProducing()
    assert t.received() == b"250 2.0.0 Ok\r\n" * 10
    assert t.transport.producerState == "producing"


def test_input_is_left_in_the_kernel_while_a_command_is_decided(talk: Talk) -> None:
    t = talk()
    t.session.storing = Deferred()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    t.send(b"NOOP\r\n" * 50_000)
    assert t.transport.producerState == "paused"


def test_draining_ends_an_idle_session_at_once_and_a_message_behind_its_250(talk: Talk) -> None:
    idle, busy = talk(), talk()
    busy.session.storing = Deferred()
    busy.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    busy.received()
    idle.server.drain()
    busy.server.drain()
    assert idle.received() == b"421 4.3.2 Service shutting down, try again later\r\n"
    assert idle.closing
    assert busy.received() == b""
    busy.session.storing.callback(None)
    assert busy.received() == (
        b"250 2.0.0 Ok: queued as id1\r\n421 4.3.2 Service shutting down, try again later\r\n"
    )


def test_draining_lets_data_in_progress_come_to_its_end(talk: Talk) -> None:
    t = talk()
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n")
    t.received()
    t.server.drain()
    assert t.received() == b""
    t.send(b".\r\n")
    assert t.received().startswith(b"250 2.0.0 Ok: queued as id1\r\n421 ")


def test_bytes_behind_starttls_are_thrown_away_and_the_session_closed(talk: Talk) -> None:
    t = talk(SUBMISSION, tls=object())
    t.send(b"STARTTLS\r\nMAIL FROM:<a@example.org>\r\n")
    assert t.received() == b"501 5.5.1 Nothing may follow STARTTLS\r\n"
    assert t.closing


def test_submission_wants_tls_then_a_login(talk: Talk) -> None:
    t = talk(SUBMISSION, tls=object())
    assert t.say(b"MAIL FROM:<>") == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
    assert t.say(b"AUTH PLAIN") == b"538 5.7.11 Encryption required for authentication\r\n"
    under_tls(t)
    assert t.say(b"MAIL FROM:<>") == b"530 5.7.0 Authentication required\r\n"
    assert t.say(b"AUTH CRAM-MD5").startswith(b"504 5.5.4 ")
    assert t.say(b"AUTH PLAIN " + plain("user", "right")) == b"235 2.7.0 Authentication successful\r\n"
    assert t.say(b"AUTH PLAIN") == b""
    t.clock.advance(1)
    assert t.received().startswith(b"503 5.5.1 ")
    assert t.say(b"MAIL FROM:<>") == b"250 2.1.0 Ok\r\n"


def test_auth_login_asks_for_both_parts(talk: Talk) -> None:
    t = under_tls(talk(SUBMISSION))
    assert t.say(b"AUTH LOGIN") == b"334 VXNlcm5hbWU6\r\n"
    assert t.say(base64.b64encode(b"user")) == b"334 UGFzc3dvcmQ6\r\n"
    assert t.say(base64.b64encode(b"right")).startswith(b"235 ")
    assert t.session.logins == [("user", "right")]


def test_auth_can_be_cancelled_and_needs_base64(talk: Talk) -> None:
    t = under_tls(talk(SUBMISSION))
    t.say(b"AUTH LOGIN")
    assert t.say(b"*") == b"501 5.7.0 Authentication cancelled\r\n"
    t.say(b"AUTH LOGIN")
    assert t.say(b"not base64!") == b"501 5.5.2 Cannot decode base64\r\n"
    t.say(b"AUTH LOGIN")
    assert t.say(b"A" * 13000) == b"500 5.5.6 Authentication exchange line is too long\r\n"
    assert t.say(b"NOOP") == b"250 2.0.0 Ok\r\n"


def test_failed_logins_are_answered_later_each_time_and_the_fourth_ends_it(talk: Talk) -> None:
    t = under_tls(talk(SUBMISSION))
    for wait in (1, 2, 4):
        assert t.say(b"AUTH PLAIN " + plain("user", "wrong")) == b""
        t.clock.advance(wait - 0.1)
        assert t.received() == b""
        t.clock.advance(0.1)
        assert t.received() == b"535 5.7.8 Authentication credentials invalid\r\n"
    assert t.say(b"AUTH PLAIN " + plain("user", "right")).startswith(b"421 4.7.0 ")
    assert t.closing


def test_a_refusal_of_the_session_is_sent_as_it_is(talk: Talk) -> None:
    t = talk()
    t.session.error = ReplyError(reply.NO_ROOM)
    t.send(b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\ntext\r\n.\r\n")
    assert t.received().endswith(b"452 4.3.1 Insufficient storage, try again later\r\n")


def test_what_a_client_sent_comes_back_escaped(talk: Talk) -> None:
    t = talk()
    answer = t.say("MAIL FROM:<a@example.org> \u202eX".encode())
    assert answer.isascii()
    assert b"\n" not in answer[:-2]


def test_the_session_hears_of_the_end(talk: Talk) -> None:
    t = talk()
    t.server.connectionLost()
    assert t.session.is_closed
    assert t.company.gone == [t.server]
    assert t.clock.getDelayedCalls() == []


def test_a_stored_message_forgives_the_rsets_before_it(talk: Talk) -> None:
    t = talk()
    for _ in range(60):
        t.send(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n.\r\n")
    assert t.server.dialogue.errors == 0


def test_a_submission_may_be_held_for_a_while(talk: Talk) -> None:
    t = under_tls(talk(SUBMISSION))
    assert b"FUTURERELEASE 2592000 20" in t.say(b"EHLO client.example.org")
    t.say(b"AUTH PLAIN " + plain("user", "right"))
    assert t.say(b"MAIL FROM:<a@example.test> HOLDFOR=60").startswith(b"250 ")
    assert t.session.parameters == [{"HOLDFOR": "60"}]
    assert talk().say(b"MAIL FROM:<a@example.org> HOLDFOR=60").startswith(b"555 ")
