"""The commands: one method per verb, each returning its reply. Knows no transport (RFC 5321 3 and 4.1)."""

from __future__ import annotations

import enum
import sys
from collections.abc import Awaitable, Callable
from typing import Final

from twisted.internet.defer import Deferred

from relaymail.smtp import command, parameters, reply, sasl, xclient
from relaymail.smtp.authentication import Authentication
from relaymail.smtp.content import ChunkReader, Content
from relaymail.smtp.limits import Visit
from relaymail.smtp.policy import Policy, is_in
from relaymail.smtp.reply import Outcome, Reply, ReplyError
from relaymail.smtp.session import ISession, Peer
from relaymail.smtp.transaction import DISCARDED, Transaction

OTHER: Final = "other"
"""Stands for the verb of a command that is not known."""


class Expects(enum.Enum):
    """What the next bytes of the client are."""

    COMMAND = enum.auto()
    AUTH_RESPONSE = enum.auto()
    CONTENT = enum.auto()
    TLS = enum.auto()


class Dialogue:
    """The state of one session, and of the mail transaction in it.

    ``tls_available`` tells whether STARTTLS can be offered right now; ``new_content`` makes a place for a
    message; ``visit`` counts what this client does; ``commanded`` is told of each verb, or ``other``.
    """

    def __init__(
        self,
        policy: Policy,
        peer: Peer,
        session: ISession,
        authentication: Authentication,
        tls_available: Callable[[], bool],
        new_content: Callable[[], Content],
        visit: Visit,
        commanded: Callable[[str], None],
    ) -> None:
        self.policy = policy
        self.peer = peer
        self.session = session
        self.authentication = authentication
        self._expects = Expects.COMMAND
        self.messages = 0
        self.recipients = 0
        """Of all stored messages."""
        self.octets = 0
        """Of all stored messages."""
        self.errors = 0
        self.data_refused = False
        """Whether the last command was a DATA that was refused."""
        self._mechanisms: tuple[str, ...] = ()
        self._tls_available = tls_available
        self._new_content = new_content
        self._visit = visit
        self._commanded = commanded
        self._limits = policy.limits
        self._connected_from = peer.address
        self._junk = 0
        self._wasted = False
        """Whether the last command was one NOOP, RSET or VRFY too many."""
        self.first = True
        """Whether the client has not said anything yet."""
        self._transaction: Transaction | None = None
        self._refused_chunk: tuple[ChunkReader, Reply] | None = None
        """A chunk that is read to its end and thrown away, and what is said then."""

    def _clear(self) -> None:
        """The transaction, if there is one, is over."""
        if self._transaction is not None:
            self._transaction.close()
            self._transaction = None
        self.session.reset()

    @property
    def expects(self) -> Expects:
        """What the next bytes of the client are."""
        return Expects.AUTH_RESPONSE if self.authentication.in_progress else self._expects

    @expects.setter
    def expects(self, expects: Expects) -> None:
        self._expects = expects

    # What the engine feeds in

    def line(self, line: bytes) -> Outcome | None:
        """Take a command or an AUTH response, without its line end.

        ``None``: the reply follows the content that comes next (BDAT).
        """
        self.data_refused = False
        try:
            if self.expects is Expects.AUTH_RESPONSE:
                return self.authentication.respond(sasl.decode(line))
            if self.first:
                self.first = False
                if command.is_http(line):
                    return reply.NOT_SMTP
            verb, argument = command.split(line)
            handler = _VERBS.get(verb)
            if handler is None:
                self._commanded(OTHER)
                return reply.UNKNOWN_COMMAND
            self._commanded(verb)
            return handler(self, argument)
        except ReplyError as refusal:
            self.authentication.end()
            return refusal.reply

    def content(self, data: bytes) -> tuple[Deferred[None] | None, bytes | None]:
        """Take bytes of a message or a chunk. Returns what to wait for, and what is behind the end (``None``:
        it has not come)."""
        if self._refused_chunk is not None:
            waiting, rest = None, self._refused_chunk[0].feed(data)[1]
        else:
            assert self._transaction is not None
            waiting, rest = self._transaction.take(data)
        if rest is not None:
            self.expects = Expects.COMMAND
        return waiting, rest

    @property
    def received(self) -> int:
        """Octets of the message in progress."""
        return self._transaction.received if self._transaction else 0

    async def end_of_content(self) -> Reply:
        """Behind the final dot or a chunk: have the message stored, if that was all of it."""
        if self._refused_chunk is not None:
            refusal, self._refused_chunk = self._refused_chunk[1], None
            return refusal
        transaction = self._transaction
        assert transaction is not None
        try:
            if not transaction.complete:
                return transaction.chunk_taken()
            octets = transaction.received
            message_id = await transaction.store()
        except BaseException as error:
            self._clear()
            if isinstance(error, ReplyError):
                return error.reply
            raise
        self._clear()
        self.messages += 1
        self.recipients += transaction.recipients
        self.octets += octets
        # Some clients say RSET before each message; as Postfix does, only those count that lead to none
        self._junk = 0
        return reply.stored(message_id)

    def tls_started(self) -> None:
        """Everything learned in clear is forgotten (RFC 3207 4.2)."""
        self.expects = Expects.COMMAND
        self.peer.name = ""
        self._clear()

    def closed(self) -> None:
        """The connection is gone."""
        if self._transaction is not None and not self._transaction.storing:
            self._transaction.close()
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
        self.peer.name = argument
        self.peer.extended = extended
        self._mechanisms = self.authentication.offer()
        return None

    def _extensions(self) -> list[str]:
        """What EHLO lists at the moment (RFC 5321 4.1.1.1)."""
        extensions = ["PIPELINING", f"SIZE {self._limits.message}"]
        if self._may_start_tls():
            # Never last: some clients look for "250-STARTTLS" (gsasl)
            extensions.append("STARTTLS")
        extensions += ["8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", "DSN"]
        if self._limits.recipients < sys.maxsize:
            extensions.append(f"LIMITS RCPTMAX={self._limits.recipients}")
        if is_in(self.policy.xclient_networks, self._connected_from):
            extensions.append(f"XCLIENT {' '.join(xclient.ATTRIBUTES)}")
        offer = self._offer()
        if offer.hold:
            latest = offer.now() + parameters.LONGEST_HOLD
            seconds = int(parameters.LONGEST_HOLD.total_seconds())
            extensions.append(f"FUTURERELEASE {seconds} {latest:%Y-%m-%dT%H:%M:%SZ}")
        if offer.priority:
            extensions.append("MT-PRIORITY")
        if offer.require_tls:
            extensions.append("REQUIRETLS")
        if self._mechanisms:
            extensions.append(f"AUTH {' '.join(self._mechanisms)}")
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
        if self.authentication.done:
            return reply.ALREADY_AUTHENTICATED
        if self._transaction is not None:
            return reply.NOT_IN_TRANSACTION
        if self.authentication.failures >= self._limits.authentications:
            return reply.TOO_MANY_AUTHENTICATIONS
        return self.authentication.begin(argument)

    def _xclient(self, argument: str) -> Outcome:
        """A proxy of ours speaks for another client; the session begins anew with that one."""
        if not is_in(self.policy.xclient_networks, self._connected_from):
            return reply.NOT_IMPLEMENTED
        if self._transaction is not None:
            return reply.NOT_IN_TRANSACTION
        if self.authentication.done:
            return reply.ALREADY_AUTHENTICATED
        client = xclient.parse(argument)
        if client.address is not None:
            self.peer.address = client.address
            self.peer.port = client.port or 0
            self._visit.enter(client.address)
        self.peer.name = ""
        self._clear()
        return reply.greeting(self.policy.server_name)

    def _mail(self, argument: str) -> Outcome:
        if not self.peer.name:
            return reply.SEND_HELLO
        if self._transaction is not None:
            return reply.SENDER_GIVEN
        if self.policy.authentication_required and not self.authentication.done:
            return reply.TLS_REQUIRED if self.peer.tls is None else reply.AUTHENTICATION_REQUIRED
        if self.messages >= self._limits.messages and not self.policy.exempts(self.peer.address):
            return reply.TOO_MANY_MESSAGES
        sender, given = command.mail_argument(argument, utf8=self.peer.extended)
        parameters.check_mail(given, self._offer())
        self._visit.message()

        def accepted() -> Reply:
            self._transaction = Transaction(
                self.policy,
                self.session,
                self._new_content,
                null_sender=sender is None,
                smtputf8="SMTPUTF8" in given,
                binary=(given.get("BODY") or "").upper() == "BINARYMIME",
            )
            return reply.SENDER_OK

        return self._after(self.session.mail(sender, given), accepted)

    def _offer(self) -> parameters.Offer:
        """The parameters of MAIL that go with what EHLO said."""
        submission = self.policy.listener != "mx"
        return parameters.Offer(
            size=self._limits.message,
            extended=self.peer.extended,
            authentication=self.policy.authentication,
            require_tls=submission and self.peer.tls is not None,
            hold=submission,
            priority=submission,
        )

    def _rcpt(self, argument: str) -> Outcome:
        transaction = self._require_transaction()
        recipient, given = command.recipient_argument(argument, utf8=transaction.smtputf8)
        parameters.check_recipient(given, extended=self.peer.extended)
        self._visit.recipient()
        transaction.try_recipient()
        return self._after(self.session.recipient(recipient, given), transaction.recipient_accepted)

    def _require_transaction(self) -> Transaction:
        if self._transaction is None:
            raise ReplyError(reply.SEND_MAIL if self.peer.name else reply.SEND_HELLO)
        return self._transaction

    def _data(self, argument: str) -> Outcome:
        self.data_refused = True
        if argument:
            return reply.syntax("DATA")
        answer = self._require_transaction().begin_data()
        self.expects = Expects.CONTENT
        self.data_refused = False
        return answer

    def _bdat(self, argument: str) -> Outcome | None:
        size, last = command.chunk_argument(argument)
        if size > DISCARDED * self._limits.message:
            return reply.CHUNK_TOO_BIG
        try:
            self._require_transaction().begin_chunk(size, last=last)
        except ReplyError as refusal:
            # The chunk comes whatever we say
            unread = ChunkReader(0)
            unread.begin(size)
            self._refused_chunk = (unread, refusal.reply)
        if size == 0:
            return self.end_of_content()
        self.expects = Expects.CONTENT
        return None

    def _rset(self, argument: str) -> Outcome:
        if argument:
            return reply.syntax("RSET")
        self._clear()
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
        return Reply(214, "2.0.0", f"Commands: {' '.join(v for v in _VERBS if v not in _UNTOLD)}")

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


_UNSUPPORTED: Final = ("EXPN", "ETRN", "TURN", "ATRN", "SEND", "SOML", "SAML")
_VERBS: Final[dict[str, Callable[[Dialogue, str], Outcome | None]]] = {
    "EHLO": Dialogue._ehlo,
    "HELO": Dialogue._helo,
    "STARTTLS": Dialogue._starttls,
    "AUTH": Dialogue._auth,
    "XCLIENT": Dialogue._xclient,
    "MAIL": Dialogue._mail,
    "RCPT": Dialogue._rcpt,
    "DATA": Dialogue._data,
    "BDAT": Dialogue._bdat,
    "RSET": Dialogue._rset,
    "NOOP": Dialogue._noop,
    "VRFY": Dialogue._vrfy,
    "HELP": Dialogue._help,
    "QUIT": Dialogue._quit,
    **dict.fromkeys(_UNSUPPORTED, Dialogue._unsupported),
}
_UNTOLD: Final = (*_UNSUPPORTED, "XCLIENT")
