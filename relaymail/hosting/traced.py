"""The same sessions, telling a tracer how long each part of a message took.

They are made only where messages are traced: who wants no traces pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from relaymail.hosting.session import Hosting, HostingSession, MXSession, SubmissionSession
from relaymail.message.ids import uuid7
from relaymail.message.record import Record
from relaymail.message.summary import Summary
from relaymail.smtp.address import Address
from relaymail.smtp.content import Content
from relaymail.smtp.parameters import Parameters
from relaymail.smtp.reply import ReplyError
from relaymail.smtp.session import Peer
from relaymail.telemetry.spans import MAIL_FROM, PARSE, RCPT_TO, SAVE, MessageTrace, Span, Tracer

T = TypeVar("T")

NewSession = Callable[[Hosting, Peer], HostingSession]


class TracedSession(HostingSession):
    """What both kinds of session tell.

    :param tracer: decides at MAIL whether this message is traced.
    """

    _trace: MessageTrace | None = None

    def __init__(self, hosting: Hosting, peer: Peer, tracer: Tracer) -> None:
        self._tracer = tracer
        super().__init__(hosting, peer)

    def reset(self) -> None:
        """Forget the transaction; its trace ends with it."""
        self._end()
        super().reset()

    def closed(self) -> None:
        """The connection is gone, and with it a transaction."""
        self._end()
        super().closed()

    def _end(self, error: str | None = None) -> None:
        trace, self._trace = self._trace, None
        if trace is not None:
            trace.end(error)

    def mail(self, sender: Address | None, parameters: Parameters) -> Awaitable[None] | None:
        """Begin a transaction and perhaps a trace."""
        self.reset()
        trace = self._tracer.begin(uuid7(), self._peer.listener, self._peer.session_id)
        if trace is None:
            return super().mail(sender, parameters)
        span = trace.span(MAIL_FROM)
        try:
            decision = super().mail(sender, parameters)
        except BaseException as error:
            span.end(_named(error))
            trace.end(_named(error))
            raise
        self._trace = trace
        if decision is None:
            span.end()
            return None
        return self._decided_sender(span, decision)

    async def _decided_sender(self, span: Span, decision: Awaitable[None]) -> None:
        try:
            await _timed(span, decision)
        except BaseException as error:
            # No transaction begins, so that nobody would end this
            self._end(_named(error))
            raise

    def recipient(self, recipient: Address, parameters: Parameters) -> Awaitable[None] | None:
        """Add a recipient, if this client may reach it."""
        if self._trace is None:
            return super().recipient(recipient, parameters)
        span = self._trace.span(RCPT_TO)
        try:
            decision = super().recipient(recipient, parameters)
        except BaseException as error:
            span.end(_named(error))
            raise
        if decision is None:
            span.end()
            return None
        return _timed(span, decision)

    async def message(self, content: Content) -> str:
        """Store the message; returning means committed."""
        try:
            return await super().message(content)
        except BaseException as error:
            self._end(_named(error))
            raise

    def _new_id(self) -> UUID:
        return super()._new_id() if self._trace is None else self._trace.message_id

    async def _summarize(self, content: Content) -> Summary:
        if self._trace is None:
            return await super()._summarize(content)
        return await _timed(self._trace.span(PARSE), super()._summarize(content))

    def _save(self, record: Record) -> Awaitable[UUID]:
        saving = super()._save(record)
        return saving if self._trace is None else _timed(self._trace.span(SAVE), saving)


class TracedMXSession(TracedSession, MXSession):
    """Mail from other hosts, traced."""


class TracedSubmissionSession(TracedSession, SubmissionSession):
    """Mail of our own users, traced."""


def new_session(listener: str, tracer: Tracer | None) -> NewSession:
    """What makes the sessions of a listener; ``tracer`` is ``None`` where nobody wants traces."""
    if tracer is None:
        return MXSession if listener == "mx" else SubmissionSession
    kind = TracedMXSession if listener == "mx" else TracedSubmissionSession
    return lambda hosting, peer: kind(hosting, peer, tracer)


async def _timed(span: Span, work: Awaitable[T]) -> T:
    """Wait for ``work``; the span ends with it."""
    try:
        result = await work
    except BaseException as error:
        span.end(_named(error))
        raise
    span.end()
    return result


def _named(error: BaseException) -> str:
    """An error in few constant words: neither a client's text nor an exception's belongs into a trace."""
    if isinstance(error, ReplyError):
        return f"{error.reply.code} {error.reply.enhanced or ''}".strip()
    return type(error).__name__
