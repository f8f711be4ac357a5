"""The engine behind every listener: bytes in, replies out, in order.

It frames commands and content, keeps the order of pipelined commands while somebody is asked, watches the
clock and closes. What a command means is in :mod:`relaymail.smtp.dialogue`; who may send what, in a session.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from relaymail.smtp import reply
from relaymail.smtp.authentication import Authentication
from relaymail.smtp.command import is_tls_hello
from relaymail.smtp.content import SLICE
from relaymail.smtp.deadline import Deadline
from relaymail.smtp.dialogue import Dialogue, Expects
from relaymail.smtp.ending import ending
from relaymail.smtp.journal import Journal
from relaymail.smtp.limits import Visit
from relaymail.smtp.output import Output
from relaymail.smtp.policy import MINUTE
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.session import Peer, TLSFacts
from relaymail.smtp.surroundings import Crowd, Surroundings
from relaymail.smtp.tls import channel_binding, describe_connection

INPUT_MARK: Final = 128 * 1024
"""Octets of pipelined input held while a command is being decided; more is left in the kernel."""

LINGER: Final = 30.0
"""Seconds a client has to take the last replies before the connection is cut."""

LINGER_AT_STOP: Final = 2.0
"""The same while the host stops, which an idle client must not hold up."""

# Looked up with every command
_CONTENT: Final = Expects.CONTENT
_TLS: Final = Expects.TLS

_AUTH_COMMAND: Final = re.compile(rb"[Aa][Uu][Tt][Hh] ")


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class ESMTPServer(Protocol):
    """One SMTP session on one connection."""

    transport: Any

    def __init__(
        self, surroundings: Surroundings, opening: Reply | None, crowd: Crowd, client: tuple[str, int]
    ) -> None:
        self._around = surroundings
        self._policy = surroundings.policy
        self._opening = opening
        self._crowd = crowd
        self._client = client
        self._reactor = surroundings.reactor
        self._buffer = b""
        self._at = 0
        self._too_long: Reply | None = None
        """What is to be said at the end of a line that is too long and being skipped."""
        self._busy = False
        """A command is being decided; nothing behind it is looked at."""
        self._advancing = False
        self._closing = False
        self._draining = False
        self._handshaking = surroundings.policy.implicit_tls
        """A TLS handshake is going on: what is written now would be held back until it is over."""
        self._end_of_input = False
        self._output_blocked = False
        self._content_blocked = False
        self._paused = False
        self._deciding: Deferred[Reply] | None = None
        self._penalty: Any = None
        """The timer of the pause that an error costs."""
        self._content_began = 0.0
        self._messages = 0
        self._stored = False
        self._last: Reply | None = None
        """The reply that closed the session."""
        self._visit = Visit(surroundings.clients)

    # The connection

    def connectionMade(self) -> None:
        """Greet, or say why not."""
        self.peer = Peer(self._around.new_session_id(), self._policy.listener, *self._client)
        around, transport = self._around, self.transport
        self._journal = Journal(self.peer, around.observer)
        session = around.new_session(self.peer)
        # Nothing here leads back to us, so that all of it goes with the connection, and not with the garbage
        self.dialogue = Dialogue(
            self._policy,
            self.peer,
            session,
            Authentication(
                self._policy,
                self.peer,
                session,
                lambda kind: channel_binding(transport, kind),
                around.scram,
            ),
            lambda: around.tls is not None,
            around.new_content,
            self._visit,
            around.observer.commanded,
        )
        if self._opening is None:
            try:
                self._visit.enter(self.peer.address)
            except ReplyError as refusal:
                self._opening = refusal.reply
        timeouts = self._policy.timeouts
        self._began = self._reactor.seconds()
        self._deadline = Deadline(self._reactor, self._began + timeouts.session, self._expired)
        self.transport.registerProducer(self, True)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._output = Output(self.transport)
        self._around.observer.connection_opened(self._policy.listener)
        if self._handshaking:
            # A greeting now would be held back, and held-back output would stop the reading that the
            # handshake needs
            self._deadline.within(timeouts.handshake)
        else:
            self._await_input()
            self._greet()

    def _greet(self) -> None:
        opening = reply.SHUTTING_DOWN if self._draining else self._opening
        self._send(opening or reply.greeting(self._policy.server_name))
        self._output.flush()

    def handshakeCompleted(self) -> None:
        """TLS is up: from here on the session is a protected one."""
        self._handshaking = False
        self.peer.tls = TLSFacts(*(describe_connection(self.transport) or ("TLS", "")))
        self._await_input()
        if self._policy.implicit_tls and not self._closing:
            self._greet()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of everything; a message being stored goes on by itself."""
        self._closing = True
        self._deadline.cancel()
        if self._penalty is not None:
            self._penalty.cancel()
            self._penalty = None
        self._buffer = b""
        self.dialogue.closed()
        self._visit.leave()
        self._crowd.ended(self)
        self._around.observer.connection_closed(self._policy.listener)
        if not self._around.probes.take(self._client):
            self._tell_end(reason)

    def _tell_end(self, reason: Failure) -> None:
        if self._opening is not None and self._last is self._opening and self._opening.reason is not None:
            self._journal.refused(self._opening.reason)
        self._journal.ended(self.dialogue, ending(self._last, reason), self._reactor.seconds() - self._began)

    def readConnectionLost(self) -> None:
        """The client sends no more; what it sent is still answered."""
        self._end_of_input = True
        self._advance()

    def writeConnectionLost(self) -> None:
        """Nobody reads our replies."""
        self._close()

    def drain(self) -> None:
        """The host is stopping: 421 now if nothing is under way, else behind the reply that is due."""
        self._draining = True
        if self._closing or self._handshaking:
            self._deadline.within(LINGER_AT_STOP)
        elif not self._busy and self.dialogue.expects is not _CONTENT:
            self._send(reply.SHUTTING_DOWN)

    def hurry(self) -> None:
        """The host has become crowded: a client that is waited for has less time from now on."""
        if not (self._busy or self._handshaking or self._closing):
            self._await_input()

    def abort(self) -> None:
        """Close without a word: never a 5xx for what might have been stored."""
        self._closing = True
        self.transport.abortConnection()

    # Input

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; go as far as they reach."""
        if self._closing:
            return
        self._buffer = self._buffer[self._at :] + data if self._buffer else data
        self._at = 0
        if self._busy:
            self._regulate()
        else:
            self._advance()

    def _advance(self) -> None:
        """Take commands and content from the buffer until something has to be waited for."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while (
                self._at < len(self._buffer)
                and not (self._busy or self._closing or self._output_blocked or self._content_blocked)
                and (self._take_content() if self.dialogue.expects is _CONTENT else self._take_line())
            ):
                pass
        finally:
            self._advancing = False
        self._output.flush()
        if self._stored:
            self._stored = False
            self._around.after_stored()
        if self._end_of_input and not (self._busy or self._content_blocked or self._output_blocked):
            self._close()
        self._regulate()

    def _take_line(self) -> bool:
        """Take one line from the buffer; false when none is complete."""
        if self.dialogue.first and is_tls_hello(self._buffer[self._at : self._at + 1]):
            # There may be no line end in it, and its sender waits for an answer
            self._send(reply.NOT_SMTP)
            return False
        end = self._buffer.find(b"\n", self._at)
        limit = self._policy.limits.command_line
        if end < 0:
            if len(self._buffer) - self._at > limit:
                self._too_long = self._too_long or self._excess(self._buffer[self._at :])
                if self._too_long is not None:
                    self._buffer, self._at = b"", 0
            return False
        line = self._buffer[self._at : end]
        self._at = end + 1
        if len(line) > limit and self._too_long is None:
            self._too_long = self._excess(line)
        if self._too_long is not None:
            self._refuse_line(self._too_long)
        elif not line or line.find(b"\r") != len(line) - 1:
            self._refuse_line(reply.BAD_LINE_END)
        elif self._draining:
            self._settle(reply.SHUTTING_DOWN)
        else:
            self._decide(line[:-1])
        return True

    def _excess(self, line: bytes) -> Reply | None:
        """How to refuse a long line or what there is of it; ``None``: AUTH may be as long as this."""
        limits = self._policy.limits
        if self.dialogue.expects is not Expects.AUTH_RESPONSE and not (
            self._policy.authentication and _AUTH_COMMAND.match(line)
        ):
            return reply.LINE_TOO_LONG
        return reply.AUTH_LINE_TOO_LONG if len(line) > limits.auth_line else None

    def _refuse_line(self, refusal: Reply) -> None:
        """Refuse a line that is not read; an AUTH exchange that it belonged to is over."""
        self._too_long = None
        self.dialogue.authentication.end()
        self._settle(refusal)

    def _decide(self, line: bytes) -> None:
        """Have the dialogue decide about a line and send its reply, in its turn."""
        try:
            outcome = self.dialogue.line(line)
        except Exception:
            outcome = self._unforeseen(Failure())
        if isinstance(outcome, Reply):
            self._settle(outcome)
        elif outcome is not None:
            self._wait_for(outcome)
        else:
            self._begin_content()

    def _wait_for(self, deciding: Coroutine[Any, Any, Reply]) -> None:
        self._busy = True
        self._deadline.within(self._policy.timeouts.store, capped=False)
        self._deciding = Deferred.fromCoroutine(deciding)
        self._deciding.addErrback(self._unforeseen)
        self._deciding.addCallback(self._decided)

    def _decided(self, answer: Reply) -> None:
        self._busy = False
        self._deciding = None
        if self._closing:
            return
        self._stored = self.dialogue.messages > self._messages
        self._messages = self.dialogue.messages
        self._settle(answer)
        if not self._busy:
            self._advance()

    def _unforeseen(self, failure: Failure) -> Reply:
        """Anything nobody foresaw is temporary: a bug or a fault of ours must not bounce mail."""
        if isinstance(failure.value, ReplyError):
            return failure.value.reply
        self._journal.unforeseen(failure)
        return reply.TEMPORARY

    def _take_content(self) -> bool:
        """Take a slice of a message from the buffer."""
        data = self._buffer[self._at : self._at + SLICE]
        self._at += len(data)
        waiting, rest = self.dialogue.content(data)
        if rest is not None:
            self._at -= len(rest)
            self._wait_for(self.dialogue.end_of_content())
        elif waiting is not None:
            self._content_blocked = True
            waiting.addBoth(self._content_unblocked)
        else:
            self._await_input()
        return True

    def _content_unblocked(self, _: object) -> None:
        self._content_blocked = False
        if not self._closing:
            self._await_input()
            self._advance()

    # Output

    def _settle(self, answer: Reply) -> None:
        """The reply of a command is known: send it, after the pause an error costs."""
        if self.dialogue.expects is _TLS:
            self._start_tls()
            return
        pause = self.dialogue.count_error(answer)
        if pause is None:
            self._send(answer)
            answer = reply.TOO_MANY_ERRORS
        elif answer is reply.AUTHENTICATION_FAILED:
            pause = self.dialogue.authentication.delay()
        if pause:
            self._busy = True
            self._penalty = self._reactor.callLater(pause, self._paid, answer)
        else:
            self._finish(answer)

    def _paid(self, answer: Reply) -> None:
        self._penalty = None
        self._busy = False
        if not self._closing:
            self._finish(answer)
            self._advance()

    def _finish(self, answer: Reply) -> None:
        self._send(answer)
        if self.dialogue.expects is _CONTENT:
            self._begin_content()
            return
        if self.dialogue.data_refused and self._at < len(self._buffer):
            # What is buffered may be a body, and a body must never run as commands
            self._last = answer
            self._output.flush()
            self._close()
            return
        if self._draining and not answer.closes:
            self._send(reply.SHUTTING_DOWN)
        self._await_input()

    def _begin_content(self) -> None:
        """What comes next is content."""
        self._content_began = self._reactor.seconds()
        self._await_input()

    def _send(self, answer: Reply) -> None:
        if self._closing:
            return
        self._output.add(answer.data)
        self._around.observer.replied(answer.code)
        # Whether it is our own probe that we turn away is known by the end of the session
        if answer.reason is not None and answer is not self._opening:
            self._journal.refused(answer.reason)
        if answer.closes:
            self._last = answer
            self._close()

    def _close(self) -> None:
        """Close behind what was written."""
        if self._closing:
            return
        self._output.flush()
        self._closing = True
        self._deadline.within(LINGER_AT_STOP if self._draining else LINGER, capped=False)
        if self._paused:
            # TLS ends with an answer of the client
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _start_tls(self) -> None:
        if self._at < len(self._buffer) or self._around.tls is None:
            # Plaintext behind STARTTLS would run as if it had come under TLS (RFC 3207 4.2 and 6)
            self.dialogue.tls_started()
            self._send(reply.STARTTLS_INJECTION)
            return
        self._send(reply.START_TLS)
        self._output.flush()
        self._output.tls_begins()
        self._handshaking = True
        self.dialogue.tls_started()
        self._deadline.within(self._policy.timeouts.handshake)
        self.transport.startTLS(self._around.tls)

    # Pauses

    def pauseProducing(self) -> None:
        """The client does not read its replies: send no more."""
        self._output_blocked = True
        self._regulate()

    def resumeProducing(self) -> None:
        """It reads again."""
        self._output_blocked = False
        if not self._busy and not self._closing:
            self._advance()
        self._regulate()

    def stopProducing(self) -> None:
        """The transport is gone; :meth:`connectionLost` follows."""

    def _regulate(self) -> None:
        """Leave input in the kernel while it cannot be worked on."""
        if self._closing:
            return
        pause = self._output_blocked or self._content_blocked or (len(self._buffer) - self._at > INPUT_MARK)
        if pause != self._paused:
            self._paused = pause
            if pause:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # The clock

    def _await_input(self) -> None:
        """Begin to wait for what the client is to send next."""
        timeouts = self._policy.timeouts
        expects = self.dialogue.expects
        if expects is _CONTENT:
            slow = self._reactor.seconds() - self._content_began - MINUTE
            too_slow = slow > 0 and self.dialogue.received < slow * timeouts.data_rate
            self._deadline.within(0.0 if too_slow else timeouts.data_idle)
        elif expects is Expects.AUTH_RESPONSE:
            self._deadline.within(timeouts.auth_line)
        else:
            self._deadline.within(timeouts.command_under_load if self._crowd.crowded else timeouts.command)

    def _expired(self) -> None:
        """The deadline has passed."""
        if self._closing or self._handshaking:
            self.abort()
        elif self._busy:
            # Our own work takes too long: give it up, which is answered 451
            self._deadline.within(self._policy.timeouts.store, capped=False)
            if self._deciding is not None:
                self._deciding.cancel()
        elif self._reactor.seconds() >= self._deadline.latest:
            self._send(reply.SESSION_TOO_LONG)
        else:
            self._send(reply.IDLE)
