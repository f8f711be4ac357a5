"""CHUNKING and BINARYMIME (RFC 3030)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relaymail.smtp.policy import Limits, Policy
from tests.smtp.memory import Conversation

MX = Policy("mx", "mx.example.test", strict_newlines=True)
BEGIN = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\n"

Talk = Callable[..., Conversation]


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """A conversation in which a recipient is accepted."""

    def begin(policy: Policy = MX, start: bytes = BEGIN) -> Conversation:
        conversation = Conversation(policy, tmp_path)
        conversation.send(b"EHLO client.example.org\r\n" + start)
        conversation.received()
        return conversation

    return begin


def codes(answers: bytes) -> list[bytes]:
    return [line[:3] for line in answers.split(b"\r\n") if line[3:4] == b" "]


def test_a_message_may_come_in_chunks(talk: Talk) -> None:
    t = talk()
    t.send(b"BDAT 12\r\nSubject: x\r\nBDAT 5 LAST\r\n\r\n.\r\n")
    assert t.received() == b"250 2.0.0 12 octets received\r\n250 2.0.0 Ok: queued as id1\r\n"
    assert t.session.messages == [("a@example.org", ["b@example.test"], b"Subject: x\r\n\r\n.\r\n")]


def test_a_last_chunk_may_be_empty(talk: Talk) -> None:
    t = talk()
    t.send(b"BDAT 4\r\na\r\n\rBDAT 1\r\n\nBDAT 0 LAST\r\n")
    assert codes(t.received()) == [b"250", b"250", b"250"]
    assert t.session.messages[0][2] == b"a\r\n\r\n"


def test_octets_of_a_chunk_are_no_commands_and_no_dots(talk: Talk) -> None:
    t = talk()
    body = b"RSET\r\n.\r\nQUIT\r\n..\r\n"
    t.send(b"BDAT %d LAST\r\n%sNOOP\r\n" % (len(body), body))
    assert codes(t.received()) == [b"250", b"250"]
    assert t.session.messages[0][2] == body


CHUNKS = st.lists(st.binary(max_size=40), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHUNKS, st.lists(st.integers(0, 400), max_size=12))
def test_the_content_is_the_chunks_however_packets_cut_them(
    talk: Talk, chunks: list[bytes], cuts: list[int]
) -> None:
    t = talk(start=b"MAIL FROM:<a@example.org> BODY=BINARYMIME\r\nRCPT TO:<b@example.test>\r\n")
    data = b"".join(b"BDAT %d\r\n%s" % (len(c), c) for c in chunks) + b"BDAT 0 LAST\r\nNOOP\r\n"
    for a, b in pairwise(sorted({0, len(data), *(min(c, len(data)) for c in cuts)})):
        t.send(data[a:b])
    assert codes(t.received()) == [b"250"] * (len(chunks) + 2)
    assert t.session.messages[0][2] == b"".join(chunks)


@pytest.mark.parametrize(
    "chunks", [[b"a\nb\r\n"], [b"a\r", b"b\r\n"], [b"a\r\n\r"], [b"a\r", b"\r\n"], [b"a", b"\n"]]
)
def test_a_bare_newline_is_refused_on_the_mx_and_allowed_in_binary_content(
    talk: Talk, chunks: list[bytes]
) -> None:
    data = b"".join(b"BDAT %d\r\n%s" % (len(c), c) for c in chunks) + b"BDAT 0 LAST\r\n"
    t = talk()
    t.send(data)
    assert t.received().endswith(b"550 5.5.2 Bare LF or CR not allowed\r\n")
    binary = talk(start=BEGIN.replace(b">\r", b"> BODY=BINARYMIME\r", 1))
    binary.send(data)
    assert binary.received().endswith(b"250 2.0.0 Ok: queued as id1\r\n")


def test_a_crlf_cut_by_a_chunk_is_none_the_worse(talk: Talk) -> None:
    t = talk()
    t.send(b"BDAT 2\r\na\rBDAT 1 LAST\r\n\n")
    assert codes(t.received()) == [b"250", b"250"]


def test_data_and_bdat_do_not_mix(talk: Talk) -> None:
    t = talk()
    t.send(b"BDAT 3\r\nabcDATA\r\n")
    assert t.received().endswith(b"503 5.5.1 Content comes with BDAT in this transaction\r\n")
    binary = talk(start=BEGIN.replace(b">\r", b"> BODY=BINARYMIME\r", 1))
    assert binary.say(b"DATA").startswith(b"503 5.5.1 ")


def test_a_refused_chunk_is_read_to_its_end(talk: Talk) -> None:
    t = talk(start=b"")
    t.send(b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
    assert t.received() == b"503 5.5.1 Send MAIL first\r\n250 2.0.0 Ok\r\n"
    t.send(b"MAIL FROM:<>\r\nBDAT 6 LAST\r\nRSET\r\nNOOP\r\n")
    assert t.received().endswith(b"503 5.5.1 Send RCPT first\r\n250 2.0.0 Ok\r\n")


def test_chunks_over_the_limit_end_the_transaction_and_the_session_stays_in_step(talk: Talk) -> None:
    t = talk(replace(MX, limits=Limits(message=10)))
    t.send(b"BDAT 8\r\n12345678BDAT 8\r\n12345678BDAT 2 LAST\r\n12NOOP\r\n")
    assert codes(t.received()) == [b"250", b"552", b"503", b"250"]
    assert t.session.messages == []


@pytest.mark.parametrize("size", [b"21", b"9223372036854775808", b"99999999999999999999"])
def test_a_chunk_that_is_far_too_big_is_not_waited_for(talk: Talk, size: bytes) -> None:
    t = talk(replace(MX, limits=Limits(message=10)))
    assert t.say(b"BDAT " + size + b" LAST") == b"552 5.3.4 Message too big\r\n"
    assert t.closing


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"1 2", b"1 FIRST", b"9" * 21])
def test_a_chunk_of_unknown_size_ends_the_session(talk: Talk, argument: bytes) -> None:
    t = talk()
    assert t.say(b"BDAT " + argument).startswith(b"501 5.5.4 ")
    assert t.closing


def test_rset_between_chunks_forgets_them(talk: Talk) -> None:
    t = talk()
    t.send(b"BDAT 3\r\nabcRSET\r\n" + BEGIN + b"BDAT 3 LAST\r\ndef")
    assert t.session.messages[0][2] == b"def"


def test_parameters_of_dsn_reach_the_session(talk: Talk) -> None:
    t = talk(start=b"")
    t.send(b"MAIL FROM:<a@example.org> RET=HDRS ENVID=x1\r\nRCPT TO:<b@example.test> NOTIFY=FAILURE\r\n")
    assert codes(t.received()) == [b"250", b"250"]
    assert t.session.parameters == [{"RET": "HDRS", "ENVID": "x1"}, {"NOTIFY": "FAILURE"}]


def test_extensions_need_ehlo(talk: Talk, tmp_path: Path) -> None:
    t = Conversation(MX, tmp_path)
    t.send(b"HELO client.example.org\r\n")
    t.received()
    assert t.say(b"MAIL FROM:<a@example.org> RET=HDRS") == b"555 5.5.4 Unsupported option: RET\r\n"
