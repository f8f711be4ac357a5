"""Whatever happens to a session, and in whatever order, it comes to its end and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, maybeDeferred

from relaymail.smtp.policy import Limits, Policy
from relaymail.smtp.reply import TEMPORARY, ReplyError
from tests.smtp.memory import Conversation

POLICY = Policy(
    "submission",
    "mail.example.test",
    starttls=True,
    authentication=True,
    limits=Limits(message=3000, text_line=2000, free_errors=0),
)

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"
LINE = b"x" * 600 + b"\r\n"

MAIL = [
    ENVELOPE,
    ENVELOPE + LINE,
    ENVELOPE + b"text\r\n.\r\n",
    ENVELOPE + LINE * 3 + b".\r\n",
    LINE,
    b".\r\n",
    b"NOOP\r\n",
    b"HELP\r\n" * 150,
]

SAID = [
    b"EHLO client.example.org\r\n",
    b"MAIL FROM:<a@example.org>\r\n",
    b"RCPT TO:<b@example.test>\r\n",
    ENVELOPE + b"text\r\n.\r\n",
    b"DATA\r\n",
    b"text\r\n",
    b".\r\n",
    LINE,
    LINE * 4,
    b"\n",
    b"RSET\r\n",
    b"NOPE\r\n",
    b"HELP\r\n" * 150,
    b"AUTH PLAIN AHVzZXIAcmlnaHQ=\r\n",
    b"AUTH LOGIN\r\n",
    b"STARTTLS\r\n",
    b"QUIT\r\n",
    b"A" * 3000,
]

steps = st.one_of(
    st.tuples(st.just("send"), st.lists(st.sampled_from(SAID), min_size=1, max_size=4).map(b"".join)),
    st.tuples(st.sampled_from(["work", "fail", "pause", "resume", "half close", "drain", "lose", "shake"])),
    st.tuples(st.just("advance"), st.sampled_from([0.5, 5.0, 61.0, 200.0])),
)


class Life:
    """A session whose every decision waits to be made, and whose spool waits to be written."""

    def __init__(self, folder: Path) -> None:
        self.talk = Conversation(POLICY, folder, object())
        self.waiting: list[Deferred[None]] = []
        self.lost = False
        self.talk.session.late = self._late
        spool = self.talk.server.dialogue._new_content

        def small() -> Any:
            content = spool()
            content._memory_limit = 500
            content._run = self._run
            return content

        self.talk.server.dialogue._new_content = small
        for name in ("message", "authenticate"):
            setattr(self.talk.session, name, self._after_a_while(getattr(self.talk.session, name)))

    def _late(self) -> Awaitable[None]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def _run(self, function: Any, *arguments: object) -> Deferred[Any]:
        self.waiting.append(Deferred())
        return self.waiting[-1].addCallback(lambda _: maybeDeferred(function, *arguments))

    def _after_a_while(self, method: Any) -> Any:
        async def later(*arguments: object) -> Any:
            await self._late()
            return await method(*arguments)

        return later

    def step(self, what: str, value: Any = None) -> None:
        server = self.talk.server
        match what:
            case "work" | "fail" if self.waiting:
                waiting = self.waiting.pop(0)
                if waiting.called:
                    return
                if what == "work":
                    waiting.callback(None)
                else:
                    waiting.errback(ReplyError(TEMPORARY))
            case "advance":
                self.talk.clock.advance(value)
            case _ if self.lost:
                pass
            case "send" if self.talk.transport.producerState == "producing" and not server._end_of_input:
                self.talk.send(value)
            case "pause":
                server.pauseProducing()
            case "resume" if server._output_blocked:
                server.resumeProducing()
            case "half close" if not server._handshaking:
                server.readConnectionLost()
            case "drain":
                server.drain()
            case "shake" if server._handshaking:
                server.handshakeCompleted()
            case "lose":
                self.lose()

    def idle(self) -> None:
        """Everything under way comes to its end."""
        for _ in range(400):
            self.step("work")
            self.talk.clock.advance(0.05)

    def lose(self) -> None:
        self.lost = True
        self.talk.server.connectionLost()


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(life=st.lists(steps, max_size=30))
def test_every_session_ends_and_leaves_nothing_behind(tmp_path: Path, life: list[tuple[Any, ...]]) -> None:
    session = Life(tmp_path)
    for step in life:
        session.step(*step)
    # Nobody does anything any more, but for what is under way
    if not session.lost:
        for _ in range(400):
            if session.talk.closing:
                break
            session.step("advance", 60.0)
        assert session.talk.closing
        session.step("advance", 60.0)
        session.lose()
    for _ in range(200):
        session.step("work")
    assert session.waiting == []
    assert session.talk.clock.getDelayedCalls() == []
    assert len(session.talk.company.gone) == 1
    assert session.talk.session.is_closed


mail_steps = st.one_of(
    st.tuples(st.just("send"), st.lists(st.sampled_from(MAIL), min_size=1, max_size=3).map(b"".join)),
    st.tuples(st.just("work")),
    st.tuples(st.just("work")),
    st.tuples(st.sampled_from(["pause", "resume"])),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(life=st.lists(mail_steps, max_size=30))
def test_what_was_promised_is_kept_and_no_session_goes_deaf(
    tmp_path: Path, life: list[tuple[Any, ...]]
) -> None:
    session = Life(tmp_path)
    session.step("send", b"EHLO client.example.org\r\n")
    for step in life:
        session.step(*step)
    session.idle()
    session.step("resume")
    session.idle()
    replies = session.talk.received()
    assert replies.count(b"Ok: queued as id") == len(session.talk.session.messages)
    if not (session.talk.closing or session.talk.server._handshaking):
        # Whatever it waits for, a command or a message's end, it is not deaf
        assert session.talk.transport.producerState == "producing"
        assert session.talk.server._at == len(session.talk.server._buffer)
        session.talk.send(b"\r\n.\r\nNOOP\r\n")
        session.idle()
        assert session.talk.received()
