"""The end of a session in the log and the metrics: who it was, what it brought, what ended it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from relaymail.smtp import reply
from relaymail.smtp.policy import Limits, Policy
from relaymail.smtp.session import TLSFacts
from tests.smtp.memory import Conversation

MX = Policy("mx", "mx.example.test", strict_newlines=True)
MESSAGE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n1234567\r\n.\r\n"

Talk = Callable[..., Conversation]


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """Begins a conversation."""

    def begin(policy: Policy = MX) -> Conversation:
        conversation = Conversation(policy, tmp_path)
        conversation.send(b"EHLO client.example.org\r\n")
        return conversation

    return begin


def end(t: Conversation, error: Exception | None = None) -> dict[str, Any]:
    """The connection is lost; what is logged of it."""
    with capturedLogs() as lines:
        t.server.connectionLost(Failure(error or ConnectionDone()))
    [line] = [line for line in lines if "ended" in line["log_format"]]
    [counted] = t.counter.ends
    assert counted == line["end"]
    return dict(line)


def test_the_line_says_who_it_was_and_what_it_brought(talk: Talk) -> None:
    t = talk()
    t.peer.tls = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    t.peer.login = "user@example.test"
    two = MESSAGE.replace(b"DATA", b"RCPT TO:<c@example.test>\r\nDATA")
    t.send(MESSAGE + two + b"NONSENSE\r\nQUIT\r\n")
    t.clock.advance(2.5)
    line = end(t)
    fields = {
        "session": "session",
        "listener": "mx",
        "client": "192.0.2.1",
        "end": "quit",
        "login": "user@example.test",
        "messages": 2,
        "recipients": 3,
        "bytes": 18,
        "errors": 1,
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
        "seconds": 2.5,
    }
    assert {name: line[name] for name in fields} == fields
    assert line["log_format"].format_map(line) == (
        "Session session on mx from 192.0.2.1 ended: quit; login user@example.test, 2 messages to 3"
        " recipients, 18 bytes, 1 errors, TLSv1.3 TLS_AES_256_GCM_SHA384, 2.50 s"
    )


def test_a_session_that_brought_nothing_has_a_line_as_well(talk: Talk) -> None:
    line = end(talk())
    assert (line["messages"], line["recipients"], line["bytes"]) == (0, 0, 0)
    assert (line["login"], line["tls"]) == ("none", "no TLS")


def test_what_was_refused_does_not_count_as_brought(talk: Talk) -> None:
    t = talk(replace(MX, limits=Limits(message=3)))
    t.send(MESSAGE + b"RSET\r\n")
    line = end(t)
    assert (line["messages"], line["recipients"], line["bytes"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (ConnectionDone(), "closed by client"),
        (ConnectionLost(), "lost"),
        (ConnectionAborted(), "cut"),
        (SSL.Error([("SSL routines", "", "bad certificate")]), "TLS failure"),
    ],
)
def test_an_end_without_a_reply_is_told_by_what_happened(talk: Talk, error: Exception, word: str) -> None:
    assert end(talk(), error)["end"] == word


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"QUIT\r\n", "quit"),
        (b"RSET\r\n" * 3 + b"X\r\n" * 30, "too many errors"),
        (b"BDAT x\r\n", "bad chunk"),
        (b"BDAT 999999999999\r\n", "message too big"),
        (b"DATA\r\nSubject: a body behind a refused DATA\r\n", "refused"),
    ],
)
def test_an_end_by_a_reply_is_told_by_it(talk: Talk, said: bytes, word: str) -> None:
    t = talk()
    t.send(said)
    while not t.closing:
        t.clock.advance(1)
        assert t.clock.seconds() < 60
    assert end(t)["end"] == word


def test_a_client_that_says_nothing_was_idle(talk: Talk) -> None:
    t = talk()
    t.clock.advance(MX.timeouts.command + 1)
    assert end(t)["end"] == "idle"


def test_a_session_that_a_stop_ended_says_so(talk: Talk) -> None:
    t = talk()
    t.server.drain()
    assert end(t)["end"] == "shutdown"


def test_a_client_that_speaks_http_is_told_apart(tmp_path: Path) -> None:
    t = Conversation(MX, tmp_path)
    t.send(b"GET / HTTP/1.1\r\n")
    assert end(t)["end"] == "not SMTP"


def test_commands_are_counted_by_verb_and_unknown_ones_together(talk: Talk) -> None:
    t = talk()
    t.send(MESSAGE + b"noop\r\nNONSENSE\r\nX-WHATEVER 1\r\n")
    assert t.counter.commands == ["EHLO", "MAIL", "RCPT", "DATA", "NOOP", "other", "other"]


def test_a_probe_of_ours_leaves_no_line_and_is_not_counted(talk: Talk) -> None:
    t = talk()
    t.server._around.probes.add(("192.0.2.1", 54321))
    with capturedLogs() as lines:
        t.server.connectionLost(Failure(ConnectionDone()))
    assert lines == []
    assert t.counter.ends == []


@pytest.mark.parametrize(("ours", "counted"), [(True, []), (False, ["not ready"])])
def test_only_a_client_that_is_turned_away_at_the_door_is_a_refusal(
    tmp_path: Path, ours: bool, counted: list[str]
) -> None:
    with capturedLogs() as lines:
        t = Conversation(MX, tmp_path, opening=reply.NOT_READY)
        assert t.received().startswith(b"421 4.3.2")
        if ours:
            t.server._around.probes.add(("192.0.2.1", 54321))
        t.server.connectionLost(Failure(ConnectionDone()))
    assert t.counter.refusals == counted
    assert len(lines) == 2 * len(counted)
