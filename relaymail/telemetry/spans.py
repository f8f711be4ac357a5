"""The parts of a message's way through the host, for traces. What records them is elsewhere."""

from __future__ import annotations

from typing import Final, Protocol
from uuid import UUID

SAVE: Final = "smtp.message.save"
PARSE: Final = "smtp.message.parse"
MAIL_FROM: Final = "smtp.filter.mail_from"
RCPT_TO: Final = "smtp.filter.rcpt_to"
NOTIFY: Final = "smtp.notify.users"


class Span(Protocol):
    """Something that takes time; it has begun."""

    @property
    def traceparent(self) -> str:
        """The header that carries the trace to another service (W3C Trace Context 3.2)."""

    def end(self, error: str | None = None) -> None:
        """It is over; ``error`` says in a constant phrase what was wrong with it."""


class MessageTrace(Protocol):
    """The trace of one message: from MAIL to the last reply."""

    @property
    def message_id(self) -> UUID:
        """The message's, and the trace's, id."""

    def span(self, name: str) -> Span:
        """Begin a part of it."""

    def end(self, error: str | None = None) -> None:
        """The transaction is over. More than once is the same as once."""


class Tracer(Protocol):
    """Decides by a message's id whether it is traced, so that whoever knows the id decides the same."""

    def begin(self, message_id: UUID, listener: str, session_id: str) -> MessageTrace | None:
        """A transaction whose message will have this id begins; ``None``: it is not traced."""

    def notification(self, message_id: UUID) -> Span | None:
        """A notification of this message begins, in whatever process, or after however long."""
