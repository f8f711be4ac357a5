"""What a session ended with, in a word for the log and the metrics."""

from __future__ import annotations

from typing import Final

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.error import ConnectionLost as Lost
from twisted.python.failure import Failure

from relaymail.smtp import reply
from relaymail.smtp.reply import Reply

_WORDS: Final = {
    reply.BYE: "quit",
    reply.NOT_SMTP: "not SMTP",
    reply.SHUTTING_DOWN: "shutdown",
    reply.IDLE: "idle",
    reply.SESSION_TOO_LONG: "session too long",
    reply.STARTTLS_INJECTION: "input behind STARTTLS",
    reply.BAD_CHUNK: "bad chunk",
}
OTHER: Final = "refused"
"""A reply that closes and is not named here has a reason of its own, mostly."""


def ending(last: Reply | None, reason: Failure) -> str:
    """One of few constant phrases.

    :param last: the reply that closed the session; ``None``: the connection ended without one.
    :param reason: what ``connectionLost`` was told.
    """
    if last is not None:
        return _WORDS.get(last) or last.reason or OTHER
    if reason.check(ConnectionAborted):
        return "cut"
    if reason.check(ConnectionDone):
        return "closed by client"
    return "lost" if reason.check(Lost) else "TLS failure"
