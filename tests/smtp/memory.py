"""The engine over an in-memory transport: a session that decides as told, a clock that does not tick."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from relaymail.smtp import reply
from relaymail.smtp.address import Address
from relaymail.smtp.content import Content
from relaymail.smtp.limits import ClientLimits
from relaymail.smtp.policy import Policy
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.scram import KeyFound, Salting
from relaymail.smtp.server import ESMTPServer
from relaymail.smtp.session import Peer
from relaymail.smtp.surroundings import Surroundings


class Transport(StringTransport):
    """Also knows what a TCP transport knows beyond it."""

    aborted = False
    protocol: Any = None

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to do in memory."""

    def startTLS(self, factory: object) -> None:
        """The handshake is the test's to tell of."""


class RecordingSession:
    """Takes all mail; ``late`` makes it wait for a Deferred before each decision about an address."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.late: Callable[[], Awaitable[None]] | None = None
        self.storing: Deferred[None] | None = None
        self.refuse_recipients = False
        self.error: Exception | None = None
        self.parameters: list[Mapping[str, str | None]] = []
        self.logins: list[tuple[str, str]] = []
        self.salting = Salting(b"salt", 4096)
        self.scram_keys: list[tuple[bytes, bytes]] = []
        """StoredKey and ServerKey of each of the user's."""
        self.is_closed = False
        self.reset()

    def mail(self, sender: Address | None, parameters: Mapping[str, str | None]) -> Awaitable[None] | None:
        self._sender = "" if sender is None else str(sender)
        self.parameters.append(parameters)
        return self.late() if self.late else None

    def recipient(self, recipient: Address, parameters: Mapping[str, str | None]) -> Awaitable[None] | None:
        if self.refuse_recipients:
            raise ReplyError(reply.NO_SUCH_MAILBOX)
        self._recipients.append(str(recipient))
        self.parameters.append(parameters)
        return self.late() if self.late else None

    async def message(self, content: Content) -> str:
        await content.finish()
        taken = (self._sender, list(self._recipients), content.memory() or b"".join(content.parts(1 << 20)))
        if self.storing is not None:
            await self.storing
        if self.error is not None:
            raise self.error
        self.messages.append(taken)
        return f"id{len(self.messages)}"

    async def authenticate(self, login: str, password: str) -> None:
        self.logins.append((login, password))
        if password != "right":
            raise ReplyError(reply.AUTHENTICATION_FAILED)

    async def scram_salting(self, login: str) -> Salting:
        if self.late:
            await self.late()
        return self.salting

    async def scram_key(self, login: str, fits: Callable[[bytes], bool]) -> KeyFound:
        if self.late:
            await self.late()
        for stored_key, server_key in self.scram_keys:
            if fits(stored_key):
                return KeyFound(server_key, lambda: self.logins.append((login, "SCRAM")))
        raise ReplyError(reply.AUTHENTICATION_FAILED)

    def reset(self) -> None:
        self._sender = ""
        self._recipients: list[str] = []

    def closed(self) -> None:
        self.is_closed = True


class Counter:
    """Counts what metrics would."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.failures = 0
        self.refusals: list[str] = []
        self.ends: list[str] = []
        self.commands: list[str] = []

    def connection_opened(self, listener: str) -> None:
        """Not looked at."""

    def session_ended(self, listener: str, tls: str | None, end: str, seconds: float) -> None:
        self.ends.append(end)

    def commanded(self, verb: str) -> None:
        self.commands.append(verb)

    def connection_closed(self, listener: str) -> None:
        """Not looked at."""

    def replied(self, code: int) -> None:
        self.codes.append(code)

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def unexpected_error(self) -> None:
        self.failures += 1


class Company:
    """The other sessions."""

    def __init__(self) -> None:
        self.crowded = False
        self.gone: list[ESMTPServer] = []

    def ended(self, session: ESMTPServer) -> None:
        self.gone.append(session)


class Conversation:
    """One session with the engine, spoken in bytes."""

    def __init__(
        self,
        policy: Policy,
        directory: Path,
        tls: Any = None,
        *,
        clients: ClientLimits | None = None,
        client: str = "192.0.2.1",
        clock: Clock | None = None,
        opening: Reply | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.session = RecordingSession()
        self.counter = Counter()
        self.transport = Transport(peerAddress=IPv4Address("TCP", "192.0.2.1", 54321))
        self.company = Company()
        around = Surroundings(
            policy=policy,
            reactor=self.clock,
            new_session=self._new_session,
            new_session_id=lambda: "session",
            new_content=lambda: Content(directory, maybeDeferred, 256 * 1024),
            tls=tls,
            observer=self.counter,
            probes=ProbeRegistry(),
            clients=clients,
        )
        self.server = ESMTPServer(around, opening, self.company, (client, 54321))
        self.server.makeConnection(self.transport)

    def _new_session(self, peer: Peer) -> RecordingSession:
        self.peer = peer
        return self.session

    def send(self, data: bytes) -> None:
        """Bytes arrive from the client."""
        self.server.dataReceived(data)

    def received(self) -> bytes:
        """What the client has got since it was asked last."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def say(self, line: bytes) -> bytes:
        """One command and its reply."""
        self.send(line + b"\r\n")
        return self.received()

    @property
    def closing(self) -> bool:
        """Whether the engine has closed the connection."""
        return bool(self.transport.disconnecting) or self.transport.aborted
