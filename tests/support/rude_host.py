"""A next host that does as it is told, over real sockets: polite by itself, rude where a test wants it.

::

    async with RudeHost(reactor, closes_after_the_dot) as host:
        connection = await connect(reactor, "127.0.0.1", host.port, …)

Each connection is played by one script, an ``async def`` that gets a :class:`Session`: the first by the first
one and so on, those that are left by the last. Most scripts are :func:`polite` with something replaced in it.
Those at the end of this module do each rude thing once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.smtp_tls.conftest import Authority, Issued, issue

EXTENSIONS = ("PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")
"""What a host offers that is not told otherwise."""

NAME = "mx.example.test"


class Gone(Exception):
    """The client has closed."""


@implementer(IHandshakeListener)
class Session(Protocol):
    """One connection, from the host's side."""

    transport: Any

    def __init__(self, host: RudeHost) -> None:
        self.host = host
        self.commands: list[str] = []
        """Lines that were read."""
        self.messages: list[bytes] = []
        """Messages as they came, dots unstuffed."""
        self.gone = False
        self.tls = False
        self.good = True
        """What was said last was no refusal."""
        self.sender = False
        self.recipients = 0
        """Of the transaction: whether there is a sender, and how many recipients."""
        self.ended = False
        """The transaction had its message."""
        self._buffer = b""
        self._chunks = b""
        self._tail = b""
        self._waiter: Deferred[None] | None = None

    def say(self, *lines: str) -> None:
        """Send lines."""
        self.good = lines[-1:] < ("4",)
        self.raw("".join(f"{line}\r\n" for line in lines).encode())

    def raw(self, data: bytes) -> None:
        """Send octets."""
        self.transport.write(data)

    def lose(self) -> None:
        """Close."""
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close with a reset."""
        self.transport.abortConnection()

    async def line(self) -> str:
        """The next line."""
        line = (await self.until(b"\r\n")).decode(errors="replace")
        self.commands.append(line)
        return line

    async def message(self) -> bytes:
        """What comes until the final dot."""
        # The line end of DATA is the one in front of a first line that is a dot
        self._buffer = b"\r\n" + self._buffer
        stuffed = await self.until(b"\r\n.\r\n") + b"\r\n"
        message = stuffed.replace(b"\r\n.", b"\r\n")[2:]
        self.ended = True
        self.messages.append(message)
        return message

    async def until(self, end: bytes) -> bytes:
        """What comes until ``end``, which is taken too."""
        while end not in self._buffer:
            await self._more()
        found, self._buffer = self._buffer.split(end, 1)
        return found

    async def octets(self, count: int) -> bytes:
        """So many octets."""
        while len(self._buffer) < count:
            await self._more()
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    async def chunk(self, command: str) -> None:
        """What comes behind a BDAT command."""
        words = command.split()
        self._chunks += await self.octets(int(words[1]))
        if len(words) > 2:
            self.messages.append(self._chunks)
            self._chunks = b""
            self.ended = True

    @property
    def has_input(self) -> bool:
        """Whether something came that was not read."""
        return bool(self._buffer)

    def ends_with(self, end: bytes) -> bool:
        """Whether what was skipped last ends with this, of at most ten octets."""
        return self._tail.endswith(end)

    async def skip(self) -> int:
        """Read what is there, to be forgotten; how much it was."""
        while not self._buffer:
            await self._more()
        count = len(self._buffer)
        self._tail = (self._tail + self._buffer)[-10:]
        self._buffer = b""
        return count

    async def end(self) -> None:
        """Wait until the client has gone."""
        while True:
            try:
                await self._more()
            except Gone:
                return

    async def shake_hands(self, creator: object) -> None:
        """TLS from here on."""
        self.transport.startTLS(creator)
        while not self.tls:
            await self._more()

    async def _more(self) -> None:
        if self.gone:
            raise Gone
        self._waiter = Deferred()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def connectionMade(self) -> None:
        self.host.begins(self)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        self._wake()

    def handshakeCompleted(self) -> None:
        self.tls = True
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self._wake()


Script = Callable[[Session], Awaitable[None]]


class RudeHost:
    """The host: listens on loopback while it is entered."""

    def __init__(self, reactor: Any, *scripts: Script, interface: str = "127.0.0.1") -> None:
        self.address = interface
        self.port = 0
        self.sessions: list[Session] = []
        self.failures: list[Failure] = []
        """Of scripts; leaving raises the first."""
        self.reactor = reactor
        self._scripts = scripts
        self._playing: list[Deferred[Any]] = []

    async def __aenter__(self) -> RudeHost:
        factory: Any = Factory.forProtocol(partial(Session, self))
        factory.noisy = False
        self._listening = self.reactor.listenTCP(0, factory, interface=self.address)
        self.port = self._listening.getHost().port
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._listening.stopListening()
        for session in self.sessions:
            if not session.gone:
                session.abort()
        for playing in self._playing:
            playing.cancel()
        if error is None and self.failures:
            self.failures[0].raiseException()

    @property
    def session(self) -> Session:
        """The last one that began."""
        return self.sessions[-1]

    def begins(self, session: Session) -> None:
        """A client has connected."""
        script = self._scripts[min(len(self.sessions), len(self._scripts) - 1)]
        self.sessions.append(session)
        playing = Deferred.fromCoroutine(self._play(script, session))
        self._playing.append(playing)
        playing.addErrback(self.failures.append)

    async def _play(self, script: Script, session: Session) -> None:
        try:
            await script(session)
        except (Gone, CancelledError):
            pass


Answer = str | Sequence[str] | Callable[[Session, str], Awaitable[None]]
"""Lines to be said, or what is to be done about a command."""


async def polite(
    session: Session,
    *,
    greeting: str = f"220 {NAME} ESMTP",
    extensions: Sequence[str] = EXTENSIONS,
    answers: Mapping[str, Answer] | None = None,
    tls: object = None,
    implicit: bool = False,
) -> None:
    """A host with manners, but for its ``answers``, by verb; that of ``.`` is the one to a message.

    :param tls: makes the server's side of TLS; offered with STARTTLS, or used at once if ``implicit``.
    """
    if implicit:
        await session.shake_hands(tls)
    session.say(greeting)
    answers = answers or {}
    while True:
        line = await session.line()
        verb = line.split(" ")[0].split(":")[0].upper()
        if verb in answers:
            await _answer(session, line, answers[verb])
        else:
            await _usual(session, verb, line, extensions, tls, answers)
        _keep_count(session, verb)
        if verb == "QUIT":
            session.lose()
            return


async def _usual(
    session: Session,
    verb: str,
    line: str,
    extensions: Sequence[str],
    tls: object,
    answers: Mapping[str, Answer],
) -> None:
    """What a polite host does about a command."""
    match verb:
        case "EHLO":
            offered = [*extensions, "STARTTLS"] if tls is not None and not session.tls else extensions
            session.say(*listed(250, NAME, *offered))
        case "RCPT" if not session.sender:
            session.say("503 5.5.1 MAIL first")
        case "DATA" if not session.recipients:
            session.say("554 5.5.1 for whom?")
        case "DATA":
            session.say("354 go ahead")
            await session.message()
            await _answer(session, ".", answers.get(".", "250 2.0.0 taken"))
        case "BDAT":
            await session.chunk(line)
            last = line.upper().endswith("LAST")
            await _answer(session, ".", answers.get(".", "250 2.0.0 taken") if last else "250 2.0.0 more")
        case "STARTTLS" if tls is not None:
            session.say("220 2.0.0 go ahead")
            await session.shake_hands(tls)
        case "QUIT":
            session.say("221 2.0.0 bye")
        case "HELO" | "MAIL" | "RCPT" | "RSET" | "NOOP":
            session.say("250 2.0.0 fine")
        case _:
            session.say("500 5.5.2 what?")


def _keep_count(session: Session, verb: str) -> None:
    """Remember how far a transaction has come."""
    if verb == "MAIL":
        session.sender = session.good
    elif verb == "RCPT":
        session.recipients += session.good
    elif verb in ("RSET", "EHLO", "HELO") or (verb in ("DATA", "BDAT") and session.ended):
        session.sender, session.recipients, session.ended = False, 0, False


async def _answer(session: Session, line: str, answer: Answer) -> None:
    if callable(answer):
        await answer(session, line)
    else:
        session.say(*([answer] if isinstance(answer, str) else answer))


def listed(code: int, *texts: str) -> list[str]:
    """The lines of one reply."""
    return [f"{code}-{text}" for text in texts[:-1]] + [f"{code} {texts[-1]}"]


# Certificates


@implementer(IOpenSSLServerConnectionCreator)
class ServerSide:
    """The server's side of TLS, with any certificate and any version."""

    def __init__(self, issued: Issued, *chain: Issued, newest: int | None = None) -> None:
        """
        :param chain: what is presented behind the certificate itself.
        :param newest: version of TLS that it knows (``SSL.TLS1_VERSION`` …).
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        if newest is not None:
            context.set_min_proto_version(SSL.TLS1_VERSION)
            context.set_max_proto_version(newest)
        context.use_certificate(issued.certificate)
        for issuer in chain:
            context.add_extra_chain_cert(issuer.certificate)
        context.use_privatekey(issued.key)
        self._context = context
        self.server_names: list[str | None] = []
        """The names that clients asked for (SNI)."""
        context.set_tlsext_servername_callback(self._asked_for)

    def _asked_for(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        self.server_names.append(None if name is None else name.decode())

    def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """A connection that has not begun its handshake."""
        return SSL.Connection(self._context, None)


def new_authority() -> Authority:
    """A certification authority."""
    root = issue("Root", authority=True)
    return Authority(root, issue("Intermediate", root, authority=True))


def tls_of(
    authority: Authority, name: str = NAME, *, newest: int | None = None, **options: Any
) -> ServerSide:
    """A server with a certificate of ``authority``; ``options`` as of :func:`issue`."""
    return ServerSide(authority.issue(name, **options), authority.intermediate, newest=newest)


EXPIRED = timedelta(days=-1)
"""For ``ends``."""


# Time


class FakeTime(Clock):
    """A reactor whose sockets are real and whose time is told: for whoever waits for a host."""

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.connectTCP = reactor.connectTCP


# Each rude thing


def closes_at(verb: str, recipients: Sequence[str] = ()) -> Script:
    """Closes instead of answering to ``verb``; ``.`` is the end of a message.

    :param recipients: replies to RCPT, where they are not the usual ones.
    """
    replies = iter(recipients)

    async def recipient(session: Session, line: str) -> None:
        session.say(next(replies, "250 2.1.5 fine"))

    async def close(session: Session, line: str) -> None:
        session.lose()
        raise Gone

    return partial(polite, answers={"RCPT": recipient, verb: close})


def says_421_at(verb: str, extensions: Sequence[str] = EXTENSIONS) -> Script:
    """Answers ``421`` to ``verb`` and closes."""

    async def say(session: Session, line: str) -> None:
        session.say("421 4.3.2 going down")
        session.lose()
        raise Gone

    return partial(polite, answers={verb: say}, extensions=extensions)


def answers_once(event: Deferred[None], verb: str = ".", answer: str = "250 2.0.0 at last") -> Script:
    """Answers to ``verb`` only when ``event`` has come."""

    async def wait(session: Session, line: str) -> None:
        await event
        session.say(answer)

    return partial(polite, answers={verb: wait})


def refuses_parameters(verb: str, extensions: Sequence[str] = EXTENSIONS) -> Script:
    """Refuses a ``verb`` with parameters, whatever it has offered."""

    async def refuse(session: Session, line: str) -> None:
        session.say("555 5.5.4 Unsupported option" if "> " in line else "250 2.1.0 fine")

    return partial(polite, answers={verb: refuse}, extensions=extensions)


refuses_the_greeting: Script = partial(polite, greeting="554 5.7.1 we do not talk to you")
is_busy_at_the_greeting: Script = partial(polite, greeting="421 4.3.2 too busy")
knows_no_ehlo: Script = partial(polite, answers={"EHLO": "502 5.5.1 what?"})
offers_starttls_and_refuses_it: Script = partial(
    polite, extensions=(*EXTENSIONS, "STARTTLS"), answers={"STARTTLS": "454 4.7.0 no TLS today"}
)
offers_chunking_and_refuses_it: Script = partial(
    polite, extensions=(*EXTENSIONS, "CHUNKING", "BINARYMIME"), answers={"BDAT": "502 5.5.1 what?"}
)
has_no_pipelining: Script = partial(polite, extensions=("8BITMIME",))
contradicts_itself: Script = partial(polite, answers={"MAIL": ["250-fine", "550 or not"]})
talks_nonsense: Script = partial(polite, answers={"MAIL": "HTTP/1.1 400 Bad Request"})


async def _inject(session: Session, line: str) -> None:
    session.raw(b"220 2.0.0 go ahead\r\n250-mx.example.test\r\n250 AUTH PLAIN\r\n")


injects_behind_starttls: Script = partial(
    polite, extensions=(*EXTENSIONS, "STARTTLS"), answers={"STARTTLS": _inject}
)


async def _never_end(session: Session, line: str) -> None:
    while not session.gone:
        session.raw(b"250-and another thing\r\n" * 100)
        turn: Deferred[None] = Deferred()
        session.host.reactor.callLater(0, turn.callback, None)
        await turn


never_ends_a_reply: Script = partial(polite, answers={"EHLO": _never_end})


async def _never_end_the_line(session: Session, line: str) -> None:
    while not session.gone:
        session.raw(b"250 " + b"x" * 1000)
        turn: Deferred[None] = Deferred()
        session.host.reactor.callLater(0, turn.callback, None)
        await turn


never_ends_a_line: Script = partial(polite, answers={"EHLO": _never_end_the_line})


async def _answer_twice(session: Session, line: str) -> None:
    session.say("250 2.1.0 fine", "250 2.1.5 very fine")


answers_twice: Script = partial(polite, extensions=("8BITMIME",), answers={"MAIL": _answer_twice})


async def _take_from_the_dead(session: Session, line: str) -> None:
    session.say("354 go ahead", "250 2.0.0 taken already")


takes_what_was_not_sent: Script = partial(polite, answers={"DATA": _take_from_the_dead})


async def drips(session: Session) -> None:
    """Polite, but for sending one octet at a time."""
    say_at_once = session.raw
    pending = bytearray()

    def drip() -> None:
        if session.gone:
            return
        say_at_once(bytes(pending[:1]))
        del pending[:1]
        if pending:
            session.host.reactor.callLater(0, drip)

    def raw(data: bytes) -> None:
        if not pending:
            session.host.reactor.callLater(0, drip)
        pending.extend(data)

    session.raw = raw  # type: ignore[method-assign]
    await polite(session, answers={"QUIT": []})
