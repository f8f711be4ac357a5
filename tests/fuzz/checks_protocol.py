"""A whole session over the transport in memory: arbitrary bytes in arbitrary packets.

The first octet chooses the listener and how its session behaves, the second how the bytes are cut; the rest
is what the client sends. The bytes are sent three times: line by line, which shows that every command gets
one reply and every message is taken as it was sent; in packets as large as they get; and cut at random. All
three must be answered alike.
"""

from __future__ import annotations

import base64
import random
import re
import tempfile
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from relaymail.smtp.policy import Limits, Policy
from relaymail.smtp.sasl import MECHANISMS
from relaymail.smtp.scram_exchange import SCRAM, SCRAM_PLUS
from relaymail.smtp.server import INPUT_MARK, ESMTPServer
from relaymail.smtp.session import TLSFacts
from tests.fuzz import checks_framing, replies
from tests.smtp.memory import Conversation

PACKET: Final = 64 * 1024
"""Octets the reactor reads at once."""
SOON: Final = 10.0
"""Seconds: timers that are due sooner are pauses of the engine or the session, not waits for the client."""
DIRECTORY: Final = Path(tempfile.gettempdir())
"""For the spool; nothing here is long enough to be spooled."""

PROXIES: Final = (ip_network("192.0.2.0/24"),)
ALL: Final = (*MECHANISMS, SCRAM, SCRAM_PLUS)
MX: Final = Policy("mx", "mx.example.test", starttls=True, strict_newlines=True, xclient_networks=PROXIES)
SUBMISSION: Final = Policy(
    "submission", "mail.example.test", starttls=True, authentication=True, mechanisms=ALL
)
_TINY: Final = Limits(
    message=300,
    command_line=100,
    auth_line=200,
    text_line=40,
    recipients=2,
    messages=2,
    errors=6,
    free_errors=2,
    junk_commands=3,
    authentications=2,
)
_DATA: Final = re.compile(rb"DATA(?: .*)?\r\n", re.IGNORECASE | re.DOTALL)
_BDAT: Final = re.compile(rb"BDAT +([0-9]{1,20})(?: +LAST)?[ \t]*\r\n", re.IGNORECASE)
_WITHOUT_CODES: Final = (b"EHLO", b"HELO", b"XCLIENT")
"""Commands that are answered without an enhanced code."""
_CHALLENGE: Final = re.compile(rb"334 ([A-Za-z0-9+/=]+)\r\n")
_MOMENT: Final = re.compile(rb"FUTURERELEASE [^\r]*")
_TLS: Final = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")


@dataclass(frozen=True)
class Setting:
    """How the listener and its session behave."""

    policy: Policy
    secure: bool
    late: bool
    """It decides about addresses behind a moment."""
    failing: bool
    """Storing fails; where it is late, so does every decision."""
    refusing: bool
    """It knows no recipient."""

    @classmethod
    def of(cls, bits: int) -> Setting:
        """The setting that an octet stands for."""
        policy = (
            Policy("submission", "mail.example.test", starttls=True, authentication=True, mechanisms=ALL)
            if bits & 1
            else Policy(
                "mx", "mx.example.test", starttls=True, strict_newlines=True, xclient_networks=PROXIES
            )
        )
        if bits & 2:
            policy = replace(policy, limits=_TINY)
        return cls(policy, bool(bits & 4), bool(bits & 8), bool(bits & 16), bool(bits & 32))


class Talk:
    """One session, and what came of it."""

    def __init__(self, setting: Setting) -> None:
        self.conversation = talk = Conversation(setting.policy, DIRECTORY, object())
        self.policy = setting.policy
        self.late = setting.late
        self.cut_off_at: int | None = None
        """Octets of output up to the reply to a refused DATA with something behind it."""
        self.server: ESMTPServer = talk.server
        self._tls_begun = False
        talk.transport.startTLS = self._begin_tls  # type: ignore[method-assign]
        talk.session.refuse_recipients = setting.refusing
        if setting.secure:
            talk.peer.tls = _TLS
        if setting.late:
            talk.session.late = lambda: _later(talk.clock, setting)
        if setting.failing:
            talk.session.error = RuntimeError("made to fail")
        self.output = talk.received()

    def feed(self, data: bytes) -> None:
        """Bytes arrive, as far as the engine reads; it is waited for where it does not."""
        for at in range(0, len(data), PACKET):
            while self.conversation.transport.producerState == "paused" and not self.over:
                assert self._tick(), "paused for ever"
            self.conversation.send(data[at : at + PACKET])
            assert len(self.server._buffer) - self.server._at <= INPUT_MARK + PACKET
            self._shake_hands()
        self.output += self.conversation.received()

    def settle(self) -> bytes:
        """Let all pauses pass; returns what has come out so far."""
        while self._tick():
            pass
        self.output += self.conversation.received()
        return self.output

    def end(self) -> None:
        """The connection is gone: nothing may be left of it."""
        self.server.connectionLost(Failure(ConnectionDone()))
        self.settle()
        assert self.conversation.clock.getDelayedCalls() == []
        assert not self.server._buffer
        assert self.conversation.session.is_closed

    @property
    def over(self) -> bool:
        """Whether the engine has closed the connection."""
        return self.conversation.closing

    @property
    def cut_off(self) -> bool:
        """Whether it was closed because of what lay behind a refused DATA or behind STARTTLS.

        That is a matter of packets: a client that waits for the reply is not cut off.
        """
        return self.over and (self.server.dialogue.data_refused or self.injected)

    @property
    def injected(self) -> bool:
        """Whether something lay behind STARTTLS."""
        return b"501 5.5.1 Nothing may follow STARTTLS" in self.output

    def _tick(self) -> bool:
        """Go to the next moment at which something happens soon."""
        clock: Any = self.conversation.clock
        soon = [call.getTime() for call in clock.getDelayedCalls() if call.getTime() - clock.seconds() < SOON]
        if not soon:
            return False
        clock.advance(max(min(soon) - clock.seconds(), 0.0))
        self._shake_hands()
        return True

    def _begin_tls(self, factory: object) -> None:
        self._tls_begun = True

    def _shake_hands(self) -> None:
        """End the handshake that was begun; what is sent from then on counts as sent under TLS."""
        if self._tls_begun:
            self._tls_begun = False
            self.server.handshakeCompleted()


def _later(clock: Any, setting: Setting) -> Deferred[None]:
    """The decision about an address, which takes a moment."""

    def decide() -> None:
        if setting.failing:
            raise RuntimeError("made to fail")

    return deferLater(clock, 0.01, decide)


def check(data: bytes) -> None:
    """Hold three sessions over the same bytes."""
    if len(data) < 2:
        return
    setting = Setting.of(data[0])
    sent = data[2:]
    slowly = Talk(setting)
    _line_by_line(slowly, sent)
    for pieces in ([sent], list(checks_framing.cut(sent, random.Random(data[1])))):
        chance = random.Random(data[1])
        talk = Talk(setting)
        for piece in pieces:
            talk.feed(piece)
            if chance.random() < 0.2:
                talk.settle()
        talk.settle()
        _same(slowly, talk)
        if len(pieces) == 1 and len(sent) <= PACKET and slowly.cut_off_at is not None and not talk.injected:
            # A body must never run as commands
            assert _timeless(talk.output) == _timeless(slowly.output[: slowly.cut_off_at])
        _check(talk, setting)
        talk.end()
    _check(slowly, setting)
    slowly.end()


def _same(slowly: Talk, other: Talk) -> None:
    """Both were answered alike; who was cut off was so until then."""
    messages = slowly.conversation.session.messages, other.conversation.session.messages
    if slowly.cut_off or other.cut_off:
        return
    assert _timeless(other.output) == _timeless(slowly.output)
    assert messages[0] == messages[1]
    assert other.over == slowly.over
    assert other.conversation.session.logins == slowly.conversation.session.logins


def _timeless(output: bytes) -> bytes:
    """``output`` without what is of the moment or of chance in it."""

    def challenge(match: re.Match[bytes]) -> bytes:
        text = base64.b64decode(match[1])
        return b"334 nonce\r\n" if text.startswith(b"r=") else match[0]

    return _CHALLENGE.sub(challenge, _MOMENT.sub(b"", output))


def _check(talk: Talk, setting: Setting) -> None:
    answers = replies.read(talk.output)
    assert [answer.code for answer in answers] == talk.conversation.counter.codes
    if not setting.failing:
        assert talk.conversation.counter.failures == 0
    closing = [answer for answer in answers if answer.code in {221, 421}]
    assert len(closing) <= 1
    assert not closing or (answers[-1] is closing[0] and talk.over)


def _line_by_line(talk: Talk, sent: bytes) -> None:
    """Send as a client that waits for each reply, and hold each against what it must be."""
    step = Step("line", b"", 0, 0)
    transactions = Transactions()
    position = 0
    while position < len(sent):
        step = _next_step(step, sent, position)
        position += len(step.sent)
        before, messages, over = len(talk.output), len(talk.conversation.session.messages), talk.over
        talk.feed(step.sent)
        answers = replies.read(talk.settle()[before:])
        if over:
            assert answers == []
            return
        step.answers = answers
        if step.kind == "line" and step.complete and not answers:
            assert step.chunk_follows, step.sent
            continue
        assert len(answers) == step.complete or _closed_by(talk, answers, step), (step, answers)
        transactions.check(talk, step)
        if step.complete and step.kind != "line":
            _check_stored(talk, step, messages)
        if step.refused_data and position < len(sent) and talk.cut_off_at is None:
            talk.cut_off_at = len(talk.output)
        if answers and not answers[0].enhanced:
            assert answers[0].code in {334, 354} or step.sent[:8].upper().startswith(_WITHOUT_CODES), step


@dataclass
class Step:
    """What is sent at once: a line, or the content that follows one."""

    kind: Literal["line", "data", "chunk"]
    sent: bytes
    complete: bool | int
    """Whether its end is there, so that there must be a reply."""
    left: int
    """Octets of the chunk that are still to come."""
    text: bytes = b""
    """The content in it."""
    answers: list[replies.Answer] = field(default_factory=list)

    @property
    def refused_data(self) -> bool:
        """Whether this is a DATA that was refused."""
        refused = self.kind == "line" and bool(self.answers) and self.answers[0].code in {501, 503, 554}
        return refused and _DATA.fullmatch(self.sent) is not None

    @property
    def chunk_follows(self) -> int:
        """The size of the chunk that this line announces; 0 for none."""
        match = _BDAT.fullmatch(self.sent) if self.kind == "line" and not self.answers else None
        return int(match[1]) if match else 0


def _next_step(last: Step, sent: bytes, position: int) -> Step:
    """What a client that has got the answers to ``last`` sends next."""
    left = last.chunk_follows if last.kind == "line" else last.left
    if left:
        chunk = sent[position : position + left]
        return Step("chunk", chunk, len(chunk) == left, left - len(chunk), chunk)
    if last.answers and last.answers[0].code == 354:
        text, rest = checks_framing.unstuffed(sent[position:])
        end = len(sent) if rest is None else len(sent) - len(rest)
        return Step("data", sent[position:end], rest is not None, 0, text)
    end = sent.find(b"\n", position) + 1
    return Step("line", sent[position : end or len(sent)], end > 0, 0)


def _closed_by(talk: Talk, answers: list[replies.Answer], step: Step) -> bool:
    """Whether the engine had a reason of its own to say one thing more."""
    if not talk.over:
        return False
    if step.complete:
        return len(answers) == 2 and answers[1].code == 421
    return len(answers) == 1 and answers[0].code == 221  # a TLS hello has no line end


def _check_stored(talk: Talk, step: Step, before: int) -> None:
    """What was promised is stored as it was sent, and nothing that was not promised is."""
    messages = talk.conversation.session.messages
    answer = step.answers[0]
    if step.kind == "data":
        assert answer.code == _code_of(talk, step.text), step
    if answer.code == 250 and b"queued as" in answer.lines[0]:
        assert len(messages) == before + 1
        assert messages[-1][2] == step.text if step.kind == "data" else messages[-1][2].endswith(step.text)
    else:
        assert len(messages) == before


def _code_of(talk: Talk, text: bytes) -> int:
    """How a message must be answered: refused for what it is, or later for what is wrong with us."""
    policy = talk.policy
    if len(text) > policy.limits.message:
        return 552
    if any(len(line) > policy.limits.text_line + 1 for line in text.split(b"\n")):
        return 554
    if policy.strict_newlines and checks_framing.BARE.search(text):
        return 550
    return 250 if talk.conversation.session.error is None else 451


class Transactions:
    """The mail transaction as a client sees it (RFC 5321 3.3 and 4.1.4)."""

    def __init__(self) -> None:
        self._recipients: int | None = None
        """Accepted ones; ``None`` outside a transaction."""
        self._certain = True
        """A refused chunk may have ended it or not: that depends on why it was refused."""
        self._responding = False
        """The next line is a response of AUTH and no command."""

    def check(self, talk: Talk, step: Step) -> None:
        """Hold the answers to ``step`` against what went before. Raises :exc:`AssertionError`."""
        if not step.answers:
            return
        answer = step.answers[0]
        stored = b"queued as" in answer.lines[0]
        if stored and self._certain and not talk.late:
            assert len(talk.conversation.session.messages[-1][1]) == self._recipients
        if step.kind == "line" and not self._responding:
            self._check_command(step.sent.split(b" ")[0].strip().upper(), answer)
        if stored or step.kind == "data":
            self._recipients, self._certain = None, True
        elif step.kind == "chunk" and answer.code != 250:
            self._certain = False
        self._responding = answer.code == 334

    def _check_command(self, verb: bytes, answer: replies.Answer) -> None:
        match verb, answer.code:
            case b"MAIL", 250:
                assert self._recipients is None or not self._certain
                self._recipients, self._certain = 0, True
            case b"RCPT", 250:
                assert self._recipients is not None or not self._certain
                self._recipients = (self._recipients or 0) + 1
            case (b"DATA", 354) | (b"BDAT", 250):
                assert self._recipients or not self._certain
            case b"BDAT", _:
                self._certain = False
            case (b"RSET" | b"EHLO" | b"HELO", 250) | (b"STARTTLS" | b"XCLIENT", 220):
                self._recipients, self._certain = None, True
