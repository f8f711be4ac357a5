"""The bytes of a connection to the next host: commands out, replies in, and the clock.

It knows how many replies are due. One that nobody asked for ends the connection, for it would be taken for
the reply of the next command; so does everything that is no reply.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from relaymail.smtp.client_errors import Broken
from relaymail.smtp.client_reply import BadReply, RemoteReply, ReplyReader
from relaymail.smtp.deadline import Deadline
from relaymail.smtp.output import Output

SLICE: Final = 64 * 1024
"""Octets of a message that are written at a time."""


@implementer(IHandshakeListener, IPushProducer)
class Wire(Protocol):
    """One connection. Its methods are for one coroutine at a time.

    :param reactor: the clock.
    """

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._deadline = Deadline(reactor, math.inf, self._expired)
        self._reader = ReplyReader()
        self._replies: deque[RemoteReply] = deque()
        """Those that came and were not yet asked for."""
        self._due = 0
        """Replies to what was sent that have not come."""
        self._broken: Broken | None = None
        self._waiter: Deferred[None] | None = None
        self._paused = False
        self._producing = False
        self._handshaking = False
        self._closing = False

    @property
    def idle(self) -> bool:
        """Whether the connection stands, and nothing is under way on it."""
        return self._broken is None and not self._closing and not self._due and self._waiter is None

    # What goes out

    def command(self, data: bytes, replies: int = 1) -> None:
        """Send command lines, for which so many replies are due.

        :raises Broken: the connection is gone.
        """
        self._check()
        self._due += replies
        self._output.add(data)
        self._output.flush()

    async def body(self, data: bytes, seconds: float) -> None:
        """Send a slice of a message; returns as soon as there is room for the next.

        :raises Broken: the host did not take it within ``seconds``, said something, or is gone.
        """
        self._check()
        if not self._producing:
            self._producing = True
            # From here on the transport may hold octets that nothing must overtake
            self._output.tls_begins()
            self.transport.registerProducer(self, True)
        self.transport.write(data)
        if self._paused:
            self._deadline.within(seconds)
        while self._paused:
            await self._event()
            self._check()

    def end_of_body(self) -> None:
        """No more :meth:`body` of this message."""
        if self._producing:
            self._producing = self._paused = False
            self.transport.unregisterProducer()

    # What comes in

    async def reply(self, seconds: float) -> RemoteReply:
        """The reply that is due next.

        :raises Broken: it was not there within ``seconds``, or is never going to be.
        """
        if not self._replies:
            self._check()
            # Once: whoever drips a reply in octet by octet has no more time than others
            self._deadline.within(seconds)
        while not self._replies:
            await self._event()
            if not self._replies:
                self._check()
        return self._replies.popleft()

    def dataReceived(self, data: bytes) -> None:
        """Take what the host says."""
        if self._broken is not None or self._closing:
            return
        try:
            for reply in self._reader.feed(data):
                self._take(reply)
        except BadReply as error:
            self._break(Broken(str(error), status="4.5.0"))
        # Only now: who starts TLS must know whether there is more than one reply
        self._wake()

    def _take(self, reply: RemoteReply) -> None:
        if self._broken is not None:
            return
        asked_for = self._due > 0
        if asked_for:
            self._due -= 1
            self._replies.append(reply)
        if reply.code == 421:
            # Whatever else is due does not come any more (RFC 5321 3.8)
            self._break(Broken("the host closed the session", status=reply.status, reply=reply))
        elif not asked_for:
            self._break(Broken("the host sent a reply nobody asked for", status="4.5.0", reply=reply))

    @property
    def has_more(self) -> bool:
        """Whether the host has sent something behind the last reply."""
        return bool(self._replies) or not self._reader.between_replies

    # TLS

    async def start_tls(self, creator: Any, seconds: float) -> SSL.Connection:
        """Shake hands; the connection of which the certificate is to be checked.

        :param creator: makes the client's connection (``IOpenSSLClientConnectionCreator``).
        :raises Broken: the handshake failed, or took more than ``seconds``.
        """
        self._check()
        self._handshaking = True
        self._output.tls_begins()
        self._deadline.within(seconds)
        self.transport.startTLS(creator)
        while self._handshaking:
            self._check()
            await self._event()
        self._check()
        handle: SSL.Connection = self.transport.getHandle()
        return handle

    def handshakeCompleted(self) -> None:
        """The handshake was good, whatever the certificate."""
        self._handshaking = False
        self._wake()

    # Pauses

    def pauseProducing(self) -> None:
        """The host does not take what was sent: no more for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """There is room again."""
        self._paused = False
        self._wake()

    def stopProducing(self) -> None:
        """The transport is gone; :meth:`connectionLost` follows."""

    # The end

    def quit(self, seconds: float) -> None:
        """Send QUIT if that makes sense, and close, in ``seconds`` at the latest. Waits for nothing."""
        if self._closing:
            return
        if not self.idle:
            self.abort()
            return
        self._closing = True
        self._output.add(b"QUIT\r\n")
        self._output.flush()
        self._deadline.within(seconds)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Cut the connection."""
        self._closing = True
        self._break(Broken("the connection was dropped here"))

    def connectionMade(self) -> None:
        """Begin to listen."""
        self.transport.setTcpNoDelay(True)
        self._output = Output(self.transport)
        # The greeting
        self._due = 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The host is gone."""
        what = "the TLS handshake failed" if self._handshaking else "the connection was lost"
        if isinstance(reason.value, SSL.Error):
            why = f"{what}: {_words(reason.value)}"
        elif reason.check(ConnectionDone, ConnectionLost):
            why = f"{what}: the host closed it"
        else:
            why = f"{what}: {reason.getErrorMessage()}"
        if self._broken is None:
            self._broken = Broken(why)
        # What is gone has no producer, and under TLS cannot even be told so
        self._producing = self._paused = False
        self._deadline.cancel()
        self._wake()

    def _break(self, broken: Broken) -> None:
        """Give up the connection; replies that came before this can still be had."""
        if self._broken is None:
            self._broken = broken
            self._deadline.cancel()
            self.transport.abortConnection()
        self._wake()

    def _expired(self) -> None:
        """Nothing came in time."""
        if self._closing:
            self.transport.abortConnection()
        elif self._waiter is not None:
            self._break(Broken("the host did not answer in time"))

    # Waiting

    def _check(self) -> None:
        """:raises Broken: the connection is."""
        if self._broken is not None:
            raise Broken(self._broken.why, status=self._broken.status, reply=self._broken.reply)

    async def _event(self) -> None:
        """Wait until something happens."""
        self._waiter = Deferred()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)


def _words(error: SSL.Error) -> str:
    """What OpenSSL says of an error, constant phrases of its own."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(entry[-1]) for entry in entries) or "no reason given"
