"""Replies: every code and text the listeners send, each by name (RFC 5321 4.2, enhanced codes RFC 2034 and
3463)."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import cache
from typing import Any, Final


class Reply:
    """One reply, encoded once.

    ``code`` is the three-digit code (RFC 5321 4.2.1), ``enhanced`` the enhanced status code or ``None`` (only
    the greeting and the replies to EHLO and HELO have none, RFC 2034 3), ``lines`` the text; control
    characters and non-ASCII in it are escaped, so that nothing a client sent comes back raw. ``reason`` is a
    constant phrase for the log and the metrics, of replies that refuse for the sake of a limit.
    """

    __slots__ = ("closes", "code", "data", "enhanced", "reason", "text")

    def __init__(
        self, code: int, enhanced: str | None, *lines: str, closes: bool = False, reason: str | None = None
    ) -> None:
        self.code = code
        self.enhanced = enhanced
        self.text = " ".join(lines)
        self.reason = reason
        self.closes = closes or code == 421
        """Whether the connection is closed behind it; always so for 421 (RFC 5321 3.8)."""
        prefix = f"{enhanced} " if enhanced else ""
        last = len(lines) - 1
        self.data = b"".join(
            f"{code}{' ' if n == last else '-'}{prefix}".encode() + _printable(line) + b"\r\n"
            for n, line in enumerate(lines)
        )

    def __repr__(self) -> str:
        return f"<Reply {self.code} {self.enhanced or '-'} {self.text}>"


class ReplyError(Exception):
    """A refusal: raised by a session or the grammar, sent as it is."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


Outcome = Reply | Coroutine[Any, Any, Reply]
"""What a command comes to: a reply, or a coroutine where somebody must be asked first."""


def _printable(text: str) -> bytes:
    """Printable ASCII as it is, everything else escaped."""
    if text.isascii() and text.isprintable():
        return text.encode()
    return b"".join(c.encode() if " " <= c <= "~" else c.encode("unicode_escape", "replace") for c in text)


def greeting(host: str) -> Reply:
    """The first line of a session; no version (it helps attackers only)."""
    return Reply(220, None, f"{host} ESMTP relaymail")


def stored(message_id: str) -> Reply:
    """The one reply that promises something: the message is committed."""
    return Reply(250, "2.0.0", f"Ok: queued as {message_id}")


def chunk_taken(size: int) -> Reply:
    """A chunk that others follow was taken (RFC 3030 2)."""
    return Reply(250, "2.0.0", f"{size} octets received")


def syntax(usage: str) -> Reply:
    """Bad arguments, with what would be right."""
    return Reply(501, "5.5.4", f"Syntax: {usage}")


def unsupported_option(name: str) -> Reply:
    """An unknown MAIL or RCPT parameter (RFC 5321 4.1.1.11)."""
    return Reply(555, "5.5.4", f"Unsupported option: {name[:40]}")


def bad_sender(why: str) -> Reply:
    """The reverse-path is no address."""
    return Reply(501, "5.1.7", f"Bad sender address: {why}")


def bad_recipient(why: str) -> Reply:
    """The forward-path is no address."""
    return Reply(501, "5.1.3", f"Bad recipient address: {why}")


def suppressed(status: str, since: str, reason: str) -> Reply:
    """RCPT on submission: the host of this address has said for good that it does not exist."""
    return Reply(550, status, f"Not sent again: since {since} this address is known to be refused: {reason}")


@cache
def connecting_too_fast(seconds: int) -> Reply:
    """The client has made too many connections within a minute."""
    text = f"Too many connections from your address, try again in {_seconds(seconds)}"
    return Reply(421, "4.7.1", text, reason="too many connections in a minute")


@cache
def sending_too_fast(what: str, seconds: int) -> Reply:
    """The client has sent too many ``messages`` or ``recipients`` within a minute."""
    text = f"Too many {what}, try again in {_seconds(seconds)}"
    return Reply(451, "4.7.1", text, reason=f"too many {what} in a minute")


def _seconds(count: int) -> str:
    return "1 second" if count == 1 else f"{count} seconds"


BYE: Final = Reply(221, "2.0.0", "Bye", closes=True)
"""QUIT."""
NOT_SMTP: Final = Reply(221, "2.7.0", "This is an SMTP server", closes=True)
"""The client speaks HTTP, or begins with TLS where it is not expected."""
OK: Final = Reply(250, "2.0.0", "Ok")
"""NOOP, RSET."""
SENDER_OK: Final = Reply(250, "2.1.0", "Ok")
"""MAIL accepted."""
RECIPIENT_OK: Final = Reply(250, "2.1.5", "Ok")
"""RCPT accepted."""
CANNOT_VERIFY: Final = Reply(252, "2.0.0", "Send the message and it will be tried")
"""VRFY: nobody is told who has a mailbox (RFC 5321 3.5.3)."""
START_TLS: Final = Reply(220, "2.0.0", "Ready to start TLS")
"""STARTTLS accepted."""
AUTHENTICATED: Final = Reply(235, "2.7.0", "Authentication successful")
"""AUTH succeeded."""
START_DATA: Final = Reply(354, None, "End data with <CR><LF>.<CR><LF>")
"""DATA accepted."""

SHUTTING_DOWN: Final = Reply(421, "4.3.2", "Service shutting down, try again later")
"""The host stops."""
NOT_READY: Final = Reply(421, "4.3.2", "Service not available, try again later", reason="not ready")
"""The database, or its tables, are not there."""
TOO_MANY_CONNECTIONS: Final = Reply(
    421, "4.3.2", "Too many connections, try again later", reason="too many connections"
)
"""`Smtp:Limits:Connections`."""
TOO_MANY_FROM_CLIENT: Final = Reply(
    421, "4.7.0", "Too many connections from your address", reason="too many connections of one client"
)
"""`Smtp:Limits:ConnectionsPerClient`."""
IDLE: Final = Reply(421, "4.4.2", "Timed out waiting for input")
"""A command, a line of AUTH or more of a message did not come in time."""
SESSION_TOO_LONG: Final = Reply(421, "4.4.2", "Session lasted too long")
"""`Smtp:Timeouts:Session`."""
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "Too many errors", reason="too many errors")
"""`Smtp:Limits:Errors`; behind the refusal of the last one."""
TOO_MANY_MESSAGES: Final = Reply(
    421, "4.7.0", "Too many messages in this session", reason="too many messages"
)
"""MAIL: `Smtp:Limits:MessagesPerSession`."""
TOO_MANY_AUTHENTICATIONS: Final = Reply(
    421, "4.7.0", "Too many failed authentications, try again later", reason="too many failed authentications"
)
"""AUTH: three failed in this session, or `Security:RateLimit` of the client's address."""

TEMPORARY: Final = Reply(451, "4.3.0", "Temporary server error, try again later")
"""Whatever nobody foresaw, a look-up that failed, or our own work taking too long."""
NOT_STORED: Final = Reply(451, "4.3.0", "Could not store message")
"""The database did not take the message."""
NO_ROOM: Final = Reply(452, "4.3.1", "Insufficient storage, try again later")
"""The disk of the spool folder or of the database is full, or the database does not keep up."""
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "Too many recipients", reason="too many recipients")
"""RCPT: `Smtp:Limits:Recipients`, or a second recipient of the null sender."""
TLS_NOT_AVAILABLE: Final = Reply(454, "4.7.0", "TLS not available")
"""STARTTLS: the certificate cannot be used at the moment."""
AUTHENTICATION_UNAVAILABLE: Final = Reply(454, "4.7.0", "Temporary authentication failure")
"""AUTH: the keys cannot be looked up."""

UNKNOWN_COMMAND: Final = Reply(500, "5.5.2", "Command not recognized")
"""No command of ours, an empty line, or control characters in one."""
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "Line too long")
"""A command of more than 2,048 octets; its rest is skipped."""
BAD_LINE_END: Final = Reply(500, "5.5.2", "Lines must end with CRLF")
"""A command that ends in a bare LF, or has a CR in it."""
AUTH_LINE_TOO_LONG: Final = Reply(500, "5.5.6", "Authentication exchange line is too long")
"""A line of AUTH of more than 12,288 octets (RFC 4954 4.2)."""
BAD_BASE64: Final = Reply(501, "5.5.2", "Cannot decode base64")
"""AUTH: a response that is no base64."""
AUTHENTICATION_CANCELLED: Final = Reply(501, "5.7.0", "Authentication cancelled")
"""AUTH: the client said `*`."""
STARTTLS_INJECTION: Final = Reply(501, "5.5.1", "Nothing may follow STARTTLS", closes=True)
"""Something came behind STARTTLS in clear (RFC 3207 4.2)."""
HOLD_TOO_LONG: Final = Reply(501, "5.5.4", "Cannot hold a message that long")
"""MAIL: HOLDFOR or HOLDUNTIL beyond 30 days."""
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "Command not implemented")
"""EXPN, ETRN, TURN and the like; AUTH, STARTTLS and XCLIENT where they are not offered."""
SEND_HELLO: Final = Reply(503, "5.5.1", "Send EHLO first")
"""Before EHLO or HELO."""
SEND_MAIL: Final = Reply(503, "5.5.1", "Send MAIL first")
"""RCPT, DATA or BDAT before MAIL."""
SEND_RECIPIENT: Final = Reply(503, "5.5.1", "Send RCPT first")
"""DATA or BDAT before RCPT."""
SEND_CHUNKS: Final = Reply(503, "5.5.1", "Content comes with BDAT in this transaction")
"""DATA behind BDAT, or for BODY=BINARYMIME (RFC 3030 2 and 3)."""
RECIPIENT_TOO_LATE: Final = Reply(503, "5.5.1", "Recipients come before the content")
"""RCPT behind BDAT."""
SENDER_GIVEN: Final = Reply(503, "5.5.1", "Sender already given")
"""MAIL during a transaction."""
ALREADY_AUTHENTICATED: Final = Reply(503, "5.5.1", "Already authenticated")
"""AUTH or XCLIENT behind a login."""
NOT_IN_TRANSACTION: Final = Reply(503, "5.5.1", "Not allowed during a mail transaction")
"""AUTH or XCLIENT during a transaction."""
UNKNOWN_MECHANISM: Final = Reply(504, "5.5.4", "Unrecognized authentication mechanism")
"""AUTH with a mechanism that EHLO did not list."""
TLS_REQUIRED: Final = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
"""MAIL on submission before STARTTLS."""
AUTHENTICATION_REQUIRED: Final = Reply(530, "5.7.0", "Authentication required")
"""MAIL on submission before AUTH."""
AUTHENTICATION_FAILED: Final = Reply(535, "5.7.8", "Authentication credentials invalid")
"""AUTH: wrong user, key or proof; which, is not told."""
ENCRYPTION_REQUIRED: Final = Reply(538, "5.7.11", "Encryption required for authentication")
"""AUTH before STARTTLS."""
NO_SUCH_MAILBOX: Final = Reply(550, "5.1.1", "No such mailbox")
"""RCPT: a hosted domain, but nobody's address."""
BARE_NEWLINE: Final = Reply(550, "5.5.2", "Bare LF or CR not allowed", reason="bare newline")
"""MX: the message has a bare LF or CR."""
RELAYING_DENIED: Final = Reply(550, "5.7.1", "Relaying denied")
"""RCPT: not for anybody here."""
SENDER_NOT_PERMITTED: Final = Reply(550, "5.7.1", "Sender not permitted for this login (MAIL FROM)")
"""MAIL on submission: not an address of the login."""
AUTHOR_NOT_PERMITTED: Final = Reply(550, "5.7.1", "Sender not permitted for this login (From header)")
"""Submission: `From:` has an address that is not the login's."""
MESSAGE_TOO_BIG: Final = Reply(552, "5.3.4", "Message too big", reason="message too big")
"""`Smtp:MaxMessageSizeBytes`: at MAIL with SIZE, else behind the message or chunk."""
CHUNK_TOO_BIG: Final = Reply(552, "5.3.4", "Message too big", closes=True, reason="message too big")
"""BDAT of a chunk that is too large to be read to its end (RFC 3030 2)."""
BAD_CHUNK: Final = Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]", closes=True)
"""BDAT without a size: where the next command begins cannot be known."""
ATTACHMENT_TOO_BIG: Final = Reply(552, "5.3.4", "Attachment too big")
"""`Smtp:MaxAttachmentSizeBytes`."""
HEADER_TOO_BIG: Final = Reply(552, "5.3.4", "Header section too big")
"""`Smtp:Limits:HeaderBytes`."""
SMTPUTF8_REQUIRED: Final = Reply(553, "5.6.7", "SMTPUTF8 required")
"""An address beyond ASCII without SMTPUTF8 at MAIL (RFC 6531 3.5)."""
TLS_ACTIVE: Final = Reply(554, "5.5.1", "TLS already active")
"""STARTTLS under TLS."""
TOO_MANY_HOPS: Final = Reply(554, "5.4.6", "Too many hops, this message is looping")
"""`Smtp:Limits:Hops` (RFC 5321 6.3)."""
TEXT_LINE_TOO_LONG: Final = Reply(
    554, "5.6.0", "Message has a line that is too long", reason="text line too long"
)
"""`Smtp:Limits:LineLength`."""
NO_VALID_RECIPIENTS: Final = Reply(554, "5.5.1", "No valid recipients")
"""DATA or BDAT when every RCPT was refused."""
