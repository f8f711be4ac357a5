"""The commands: one method per verb, each returning its reply. Knows no transport (RFC 5321 3 and 4.1)."""

from __future__ import annotations

import base64
import enum
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred

from relaymail.smtp import command, reply, sasl
from relaymail.smtp.content import Content, DataReader, SpoolError
from relaymail.smtp.policy import Policy
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.session import ISession, Peer

Outcome = Reply | Coroutine[Any, Any, Reply]
"""What a command comes to: a reply, or a coroutine where somebody must be asked first."""


class Expects(enum.Enum):
    """What the next bytes of the client are."""

    COMMAND = enum.auto()
    AUTH_RESPONSE = enum.auto()
    CONTENT = enum.auto()
    TLS = enum.auto()


class Dialogue:
    """The state of one session, and of the mail transaction in it.

    ``tls_available`` tells whether STARTTLS can be offered right now; ``new_content`` makes a place for a
    message.
    """

    def __init__(
        self,
        policy: Policy,
        peer: Peer,
        session: ISession,
        tls_available: Callable[[], bool],
        new_content: Callable[[], Content],
    ) -> None:
        self.policy = policy
        self.peer = peer
        self.session = session
        self.expects = Expects.COMMAND
        self.messages = 0
        self.errors = 0
        self.data_refused = False
        """Whether the last command was a DATA that was refused."""
        self._tls_available = tls_available
        self._new_content = new_content
        self._limits = policy.limits
        self._junk = 0
        self._wasted = False
        """Whether the last command was one NOOP, RSET or VRFY too many."""
        self._authenticated = False
        self._failed_authentications = 0
        self._mechanism: sasl.Mechanism | None = None
        self.first = True
        """Whether the client has not said anything yet."""
        self._content: Content | None = None
        self._reader = DataReader(0)
        self._clear()

    def _clear(self) -> None:
        self._in_transaction = False
        self._null_sender = False
        self._smtputf8 = False
        self._recipients = 0
        self._recipients_tried = False

    # What the engine feeds in

    def line(self, line: bytes) -> Outcome:
        """Take a command or an AUTH response, without its line end."""
        self.data_refused = False
        try:
            if self.expects is Expects.AUTH_RESPONSE:
                return self._auth_response(sasl.decode(line))
            if self.first:
                self.first = False
                if command.is_http(line):
                    return reply.NOT_SMTP
            verb, argument = command.split(line)
            handler = _VERBS.get(verb)
            if handler is None:
                return reply.UNKNOWN_COMMAND
            return handler(self, argument)
        except ReplyError as refusal:
            self.end_authentication()
            return refusal.reply

    def content(self, data: bytes) -> tuple[Deferred[None] | None, bytes | None]:
        """Take bytes of a message. Returns what to wait for, and what is behind the end (``None``: not there
        yet)."""
        text, rest = self._reader.feed(data)
        assert self._content is not None
        waiting = None
        if self._content.size + len(text) > self._limits.message:
            # Too big: read to its end without keeping it, so that the session stays in step
            self._content.error = ReplyError(reply.MESSAGE_TOO_BIG)
            self._content.size += len(text)
        elif text:
            waiting = self._content.write(text)
        if rest is not None:
            self.expects = Expects.COMMAND
        return waiting, rest

    @property
    def received(self) -> int:
        """Octets of the message in progress."""
        return self._content.size if self._content else 0

    async def end_of_content(self) -> Reply:
        """Behind the final dot: have the message stored. The transaction is over either way."""
        content, self._content = self._content, None
        assert content is not None
        try:
            if isinstance(content.error, ReplyError):
                return content.error.reply
            if self._reader.long_line:
                return reply.TEXT_LINE_TOO_LONG
            if self._reader.bare_newline and self.policy.strict_newlines:
                return reply.BARE_NEWLINE
            try:
                message_id = await self.session.message(content)
            except SpoolError:
                return reply.NO_ROOM
            self.messages += 1
            return reply.stored(message_id)
        except ReplyError as refusal:
            return refusal.reply
        finally:
            content.close()
            self._clear()
            self.session.reset()

    def tls_started(self) -> None:
        """Everything learned in clear is forgotten (RFC 3207 4.2)."""
        self.expects = Expects.COMMAND
        self.peer.name = ""
        self._clear()
        self.session.reset()

    def closed(self) -> None:
        """The connection is gone."""
        if self._content is not None:
            self._content.close()
        self.session.closed()

    def count_error(self, answer: Reply) -> float | None:
        """Count a refusal; returns the seconds it costs, or ``None`` when there were too many."""
        if answer.code < 500 and not self._wasted:
            return 0.0
        self._wasted = False
        self.errors += 1
        if self.errors > self._limits.errors:
            return None
        return 1.0 if self.errors > self._limits.free_errors else 0.0

    # Verbs

    def _ehlo(self, argument: str) -> Outcome:
        refusal = self._hello(argument, extended=True, usage="EHLO hostname")
        if refusal is not None:
            return refusal
        return Reply(250, None, self.policy.server_name, *self._extensions())

    def _helo(self, argument: str) -> Outcome:
        refusal = self._hello(argument, extended=False, usage="HELO hostname")
        if refusal is not None:
            return refusal
        return Reply(250, None, self.policy.server_name)

    def _hello(self, argument: str, *, extended: bool, usage: str) -> Reply | None:
        if not argument or " " in argument:
            return reply.syntax(usage)
        self._clear()
        self.session.reset()
        self.peer.name = argument
        self.peer.extended = extended
        return None

    def _extensions(self) -> list[str]:
        extensions = [
            "PIPELINING",
            f"SIZE {self._limits.message}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
        ]
        if self._may_start_tls():
            extensions.append("STARTTLS")
        if self.policy.authentication and self.peer.tls and not self._authenticated:
            extensions.append(f"AUTH {' '.join(sasl.MECHANISMS)}")
        return extensions

    def _may_start_tls(self) -> bool:
        return self.policy.starttls and self.peer.tls is None and self._tls_available()

    def _starttls(self, argument: str) -> Outcome:
        if argument:
            return reply.syntax("STARTTLS")
        if self.peer.tls is not None:
            return reply.TLS_ACTIVE
        if not self.policy.starttls:
            return reply.NOT_IMPLEMENTED
        if not self.peer.name:
            return reply.SEND_HELLO
        if not self._tls_available():
            return reply.TLS_NOT_AVAILABLE
        self.expects = Expects.TLS
        return reply.START_TLS

    def _auth(self, argument: str) -> Outcome:
        if not self.policy.authentication:
            return reply.NOT_IMPLEMENTED
        if not self.peer.name:
            return reply.SEND_HELLO
        if self.peer.tls is None:
            return reply.ENCRYPTION_REQUIRED
        if self._authenticated:
            return reply.ALREADY_AUTHENTICATED
        if self._in_transaction:
            return reply.NOT_IN_TRANSACTION
        if self._failed_authentications >= self._limits.authentications:
            return reply.TOO_MANY_AUTHENTICATIONS
        name, _, initial = argument.partition(" ")
        if not name:
            return reply.syntax("AUTH mechanism [initial-response]")
        mechanism = sasl.MECHANISMS.get(name.upper())
        if mechanism is None:
            return reply.UNKNOWN_MECHANISM
        self._mechanism = mechanism()
        if not initial:
            return self._auth_response(None)
        # LOGIN's initial response is the login; PLAIN's is everything
        return self._auth_response(sasl.decode(initial.strip()))

    def _auth_response(self, response: bytes | None) -> Outcome:
        assert self._mechanism is not None
        try:
            step = self._mechanism.respond(response)
        except ReplyError:
            self._failed_authentications += 1
            raise
        if isinstance(step, sasl.Challenge):
            self.expects = Expects.AUTH_RESPONSE
            return sasl_challenge(step.text)
        self.end_authentication()
        return self._authenticate(step)

    def end_authentication(self) -> None:
        """The exchange, if there is one, is over."""
        self._mechanism = None
        if self.expects is Expects.AUTH_RESPONSE:
            self.expects = Expects.COMMAND

    async def _authenticate(self, credentials: sasl.Credentials) -> Reply:
        try:
            await self.session.authenticate(credentials.login, credentials.password)
        except ReplyError as refusal:
            if refusal.reply.code == 535:
                self._failed_authentications += 1
            return refusal.reply
        self._authenticated = True
        return reply.AUTHENTICATED

    def authentication_delay(self) -> float:
        """Seconds before a failed authentication is answered: 1, 2, 4, …"""
        return 2.0 ** (self._failed_authentications - 1)

    def _mail(self, argument: str) -> Outcome:
        if not self.peer.name:
            return reply.SEND_HELLO
        if self._in_transaction:
            return reply.SENDER_GIVEN
        if self.policy.authentication_required and not self._authenticated:
            return reply.TLS_REQUIRED if self.peer.tls is None else reply.AUTHENTICATION_REQUIRED
        if self.messages >= self._limits.messages and not self.policy.exempts(self.peer.address):
            return reply.TOO_MANY_MESSAGES
        sender, parameters = command.mail_argument(argument, utf8=self.peer.extended)
        self._check_mail_parameters(parameters)
        self._null_sender = sender is None
        self._smtputf8 = "SMTPUTF8" in parameters
        return self._after(self.session.mail(sender, parameters), self._sender_accepted)

    def _check_mail_parameters(self, parameters: command.Parameters) -> None:
        for name, value in parameters.items():
            match name:
                case "SIZE":
                    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 20:
                        raise ReplyError(reply.syntax("SIZE=number of octets"))
                    if int(value) > self._limits.message:
                        raise ReplyError(reply.MESSAGE_TOO_BIG)
                case "BODY":
                    if value is None or value.upper() not in {"7BIT", "8BITMIME"}:
                        raise ReplyError(reply.syntax("BODY=7BIT or BODY=8BITMIME"))
                case "SMTPUTF8" if self.peer.extended:
                    if value is not None:
                        raise ReplyError(reply.syntax("SMTPUTF8 takes no value"))
                case "AUTH" if self.policy.authentication:
                    if value is None:
                        raise ReplyError(reply.syntax("AUTH=address or AUTH=<>"))
                case _:
                    raise ReplyError(reply.unsupported_option(name))

    def _sender_accepted(self) -> Reply:
        self._in_transaction = True
        return reply.SENDER_OK

    def _rcpt(self, argument: str) -> Outcome:
        if not self._in_transaction:
            return reply.SEND_MAIL if self.peer.name else reply.SEND_HELLO
        self._recipients_tried = True
        recipient, parameters = command.recipient_argument(argument, utf8=self._smtputf8)
        for name in parameters:
            raise ReplyError(reply.unsupported_option(name))
        most = self._limits.null_sender_recipients if self._null_sender else self._limits.recipients
        if self._recipients >= most:
            return reply.TOO_MANY_RECIPIENTS
        return self._after(self.session.recipient(recipient, parameters), self._recipient_accepted)

    def _recipient_accepted(self) -> Reply:
        self._recipients += 1
        return reply.RECIPIENT_OK

    def _data(self, argument: str) -> Outcome:
        self.data_refused = True
        if argument:
            return reply.syntax("DATA")
        if not self._in_transaction:
            return reply.SEND_MAIL if self.peer.name else reply.SEND_HELLO
        if not self._recipients:
            return reply.NO_VALID_RECIPIENTS if self._recipients_tried else reply.SEND_RECIPIENT
        self._content = self._new_content()
        self._reader = DataReader(self._limits.text_line)
        self.expects = Expects.CONTENT
        self.data_refused = False
        return reply.START_DATA

    def _rset(self, argument: str) -> Outcome:
        if argument:
            return reply.syntax("RSET")
        self._clear()
        self.session.reset()
        return self._junk_reply(reply.OK)

    def _noop(self, argument: str) -> Outcome:
        return self._junk_reply(reply.OK)

    def _vrfy(self, argument: str) -> Outcome:
        if not argument:
            return reply.syntax("VRFY address")
        return self._junk_reply(reply.CANNOT_VERIFY)

    def _junk_reply(self, answer: Reply) -> Reply:
        self._junk += 1
        self._wasted = self._junk > self._limits.junk_commands
        return answer

    def _help(self, argument: str) -> Outcome:
        return Reply(214, "2.0.0", f"Commands: {' '.join(v for v in _VERBS if v not in _UNSUPPORTED)}")

    def _quit(self, argument: str) -> Outcome:
        return reply.BYE

    def _unsupported(self, argument: str) -> Outcome:
        return reply.NOT_IMPLEMENTED

    def _after(self, decision: Awaitable[None] | None, accepted: Callable[[], Reply]) -> Outcome:
        """The reply once the session has decided; at once where it did not have to ask."""
        if decision is None:
            return accepted()

        async def wait() -> Reply:
            try:
                await decision
            except ReplyError as refusal:
                return refusal.reply
            return accepted()

        return wait()


def sasl_challenge(text: bytes) -> Reply:
    """334 with the challenge in base64 (RFC 4954 4)."""
    return Reply(334, None, base64.b64encode(text).decode())


_UNSUPPORTED: Final = ("EXPN", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML", "BDAT")
_VERBS: Final[dict[str, Callable[[Dialogue, str], Outcome]]] = {
    "EHLO": Dialogue._ehlo,
    "HELO": Dialogue._helo,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth,
    "MAIL": Dialogue._mail,
    "RCPT": Dialogue._rcpt,
    "DATA": Dialogue._data,
    "RSET": Dialogue._rset,
    "NOOP": Dialogue._noop,
    "VRFY": Dialogue._vrfy,
    "HELP": Dialogue._help,
    "QUIT": Dialogue._quit,
    **dict.fromkeys(_UNSUPPORTED, Dialogue._unsupported),
}
