"""One mail transaction: sender, recipients, content (RFC 5321 3.3; chunks: RFC 3030)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from relaymail.smtp import reply
from relaymail.smtp.content import ChunkReader, Content, DataReader, SpoolError
from relaymail.smtp.policy import Policy
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.session import ISession

DISCARDED: Final = 2
"""A refused chunk is read to its end, so that the session stays in step, up to this many largest messages."""


class Reader(Protocol):
    """Takes the content out of what the client sends."""

    bare_newline: bool
    long_line: bool

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Content, and what is behind its end (``None``: the end has not come)."""


class Transaction:
    """What MAIL began. Over with the reply to the content, with RSET, or with a chunk that was refused."""

    def __init__(
        self,
        policy: Policy,
        session: ISession,
        new_content: Callable[[], Content],
        *,
        null_sender: bool,
        smtputf8: bool,
        binary: bool,
    ) -> None:
        self.smtputf8 = smtputf8
        self.storing = False
        """Whether the content is in the session's hands."""
        self._policy = policy
        self._session = session
        self._new_content = new_content
        self._binary = binary
        limits = policy.limits
        self._most = limits.null_sender_recipients if null_sender else limits.recipients
        self.recipients = 0
        """Those that were accepted."""
        self._tried = False
        self._content: Content | None = None
        self._reader: Reader | None = None
        self._chunks: ChunkReader | None = None
        self._size = 0
        """Octets of the chunk in progress."""
        self._last = True

    # Recipients

    def try_recipient(self) -> None:
        """A RCPT came. Raises the refusal where there are too many, or chunks have come (RFC 5321 4.1.4)."""
        if self._content is not None:
            raise ReplyError(reply.RECIPIENT_TOO_LATE)
        self._tried = True
        if self.recipients >= self._most:
            raise ReplyError(reply.TOO_MANY_RECIPIENTS)

    def recipient_accepted(self) -> Reply:
        """The session took it."""
        self.recipients += 1
        return reply.RECIPIENT_OK

    def _check_recipients(self) -> None:
        if not self.recipients:
            raise ReplyError(reply.NO_VALID_RECIPIENTS if self._tried else reply.SEND_RECIPIENT)

    # Content

    @property
    def receiving(self) -> bool:
        """Whether content has come, as chunks do before others."""
        return self._content is not None

    @property
    def received(self) -> int:
        """Octets of the content so far."""
        return self._content.size if self._content else 0

    def begin_data(self) -> Reply:
        """DATA. Raises the refusal."""
        self._check_recipients()
        if self._content is not None or self._binary:
            # RFC 3030 2 and 3: no DATA behind BDAT, and none for binary content
            raise ReplyError(reply.SEND_CHUNKS)
        self._content = self._new_content()
        self._reader = DataReader(self._policy.limits.text_line)
        return reply.START_DATA

    def begin_chunk(self, size: int, *, last: bool) -> None:
        """BDAT. Raises the refusal; the chunk comes all the same."""
        self._check_recipients()
        if self._content is None:
            self._content = self._new_content()
            self._chunks = ChunkReader(self._policy.limits.text_line)
        assert self._chunks is not None
        self._chunks.begin(size)
        self._reader = self._chunks
        self._size = size
        self._last = last

    def take(self, data: bytes) -> tuple[Deferred[None] | None, bytes | None]:
        """Take bytes. Returns what to wait for, and what is behind the end (``None``: it has not come)."""
        assert self._content is not None
        assert self._reader is not None
        text, rest = self._reader.feed(data)
        waiting = None
        if self._content.size + len(text) > self._policy.limits.message:
            # Too big: read to its end without keeping it, so that the session stays in step
            self._content.error = ReplyError(reply.MESSAGE_TOO_BIG)
            self._content.size += len(text)
        elif text:
            waiting = self._content.write(text)
        return waiting, rest

    @property
    def complete(self) -> bool:
        """Whether the content that ended was all of it, and not a chunk that others follow."""
        return self._last

    def chunk_taken(self) -> Reply:
        """The reply to a chunk that others follow. Raises the refusal; the transaction is over then."""
        assert self._content is not None
        if isinstance(self._content.error, ReplyError):
            raise self._content.error
        return reply.chunk_taken(self._size)

    async def store(self) -> str:
        """Have the complete message stored and return its id. Raises the refusal."""
        content, reader = self._content, self._reader
        assert content is not None
        assert reader is not None
        self.storing = True
        try:
            if self._chunks is not None:
                self._chunks.end()
            if isinstance(content.error, ReplyError):
                raise content.error
            if not self._binary and reader.long_line:
                raise ReplyError(reply.TEXT_LINE_TOO_LONG)
            if not self._binary and reader.bare_newline and self._policy.strict_newlines:
                raise ReplyError(reply.BARE_NEWLINE)
            try:
                return await self._session.message(content)
            except SpoolError:
                raise ReplyError(reply.NO_ROOM) from None
        finally:
            self.storing = False
            self.close()

    def close(self) -> None:
        """Let go of the content."""
        content, self._content = self._content, None
        if content is not None:
            content.close()
