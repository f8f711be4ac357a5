"""Play a dialogue: over sockets with a host, or in memory with a clock that only the script moves."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol
from uuid import UUID

from relaymail.assembly import listener_policy
from relaymail.settings import load
from relaymail.smtp import reply
from relaymail.smtp.reply import Reply, ReplyError
from tests.dialogues.hosts import SharedHost
from tests.dialogues.script import Do, Expect, Script, Send, matcher
from tests.end_to_end.host import User
from tests.end_to_end.wire import Closed, Wire
from tests.smtp.memory import Conversation
from tests.support.polling import until

SERVER = "relaymail.example.test"
NOBODY = User(UUID(int=0), "user@example.test", "right")
"""The user of scripts that have no database."""
HELLO = b"EHLO client.example.org\r\n"


class Line(Protocol):
    """What a script needs of a connection."""

    def send(self, data: bytes) -> None:
        """The client sends a packet."""

    def line(self) -> bytes:
        """The next line of the server. Raises :exc:`Closed`."""

    def wrap(self) -> None:
        """The client does the TLS handshake."""

    def half_close(self) -> None:
        """The client sends no more."""

    def wait(self, seconds: float) -> None:
        """Time passes."""

    def close(self) -> None:
        """The client closes."""

    def drain(self) -> None:
        """The host begins to stop."""

    def check_silence(self) -> None:
        """Nothing has come from the server."""


class Socket(Wire):
    """A connection to a host."""

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def wait(self, seconds: float) -> None:
        raise AssertionError("for WAIT the script needs `# clock: fake`")

    def drain(self) -> None:
        raise AssertionError("for DRAIN the script needs `# clock: fake`")

    def check_silence(self) -> None:
        raise AssertionError("for SILENCE the script needs `# clock: fake`")


class Memory:
    """A session in memory."""

    def __init__(self, script: Script, folder: Path, over: str) -> None:
        settings = load(None, script.settings, demo=True).settings
        listener = "submissions" if over == "implicit" else script.listener
        has_certificate = script.certificate != "none"
        policy = listener_policy(settings, listener, has_certificate=has_certificate)  # type: ignore[arg-type]
        tls = object() if script.certificate == "there" else None
        self._talk = Conversation(policy, folder, tls)
        if script.fault:
            refusal: Reply = getattr(reply, script.fault)
            self._talk.session.late = lambda: _refuse(refusal)
        self._read = b""

    def send(self, data: bytes) -> None:
        self._talk.send(data)

    def line(self) -> bytes:
        self._read += self._talk.received()
        line, end, self._read = self._read.partition(b"\r\n")
        if not end:
            assert self._talk.closing, "the server says nothing"
            raise Closed(line)
        return line

    def wrap(self) -> None:
        self._talk.server.handshakeCompleted()

    def close(self) -> None:
        self._talk.server.connectionLost()

    def drain(self) -> None:
        self._talk.server.drain()

    def half_close(self) -> None:
        self._talk.server.readConnectionLost()

    def wait(self, seconds: float) -> None:
        self._talk.clock.advance(seconds)

    def check_silence(self) -> None:
        self._read += self._talk.received()
        assert self._read == b""
        assert not self._talk.closing


async def _refuse(refusal: Reply) -> None:
    raise ReplyError(refusal)


def names_for(user: User, server: str) -> dict[str, str]:
    """What the names in braces stand for."""

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    return {
        "server": server,
        "user": user.address,
        "plain": encoded(f"\0{user.address}\0{user.key}"),
        "wrong": encoded(f"\0{user.address}\0wrong"),
        "login64": encoded(user.address),
        "key64": encoded(user.key),
    }


class Player:
    """One way of one script."""

    def __init__(
        self, script: Script, connection: Line, names: Mapping[str, str], host: SharedHost | None
    ) -> None:
        self._script = script
        self._connection = connection
        self._names = names
        self._host = host
        self._logged = len(host.log) if host else 0

    def play(self, over: str) -> None:
        """From the first octet to the last."""
        self._begin(over)
        for step in self._script.steps:
            match step:
                case Send():
                    self._connection.send(step.data(self._names))
                case Expect():
                    self._expect(step.pattern(self._names))
                case Do():
                    self._do(step)
        if not self._script.ends_closed:
            # Shows that both sides are still in step, and that nothing was said that the script has not
            self._connection.send(b"QUIT\r\n")
            self._expect(re.compile(r"221 2\.0\.0 Bye"))
            self._check_closed()

    def _begin(self, over: str) -> None:
        begin, connection = self._script.begin, self._connection
        if self._script.proxy:
            connection.send(Send(((self._script.proxy, True),)).data(self._names))
        if over == "implicit":
            connection.wrap()
        if begin == "connection":
            return
        self._expect(re.compile(r"220 \S+ ESMTP relaymail"))
        if over == "starttls":
            self._hello()
            connection.send(b"STARTTLS\r\n")
            self._expect(re.compile(r"220 2\.0\.0 .*"))
            connection.wrap()
        if begin in {"ehlo", "login"}:
            self._hello()
        if begin == "login":
            connection.send(f"AUTH PLAIN {self._names['plain']}\r\n".encode())
            self._expect(re.compile(r"235 2\.7\.0 .*"))

    def _hello(self) -> None:
        self._connection.send(HELLO)
        while self._connection.line().startswith(b"250-"):
            pass

    def _expect(self, pattern: re.Pattern[str]) -> None:
        line = self._connection.line().decode("ascii")
        assert pattern.fullmatch(line), f"expected {pattern.pattern!r}, got {line!r}"

    def _check_closed(self) -> None:
        with contextlib.suppress(Closed):
            raise AssertionError(f"more came: {self._connection.line()!r}")
        self._connection.close()

    def _do(self, step: Do) -> None:
        match step.what:
            case "CLOSED":
                self._check_closed()
            case "HALF-CLOSE":
                self._connection.half_close()
            case "TLS":
                self._connection.wrap()
            case "DRAIN":
                self._connection.drain()
            case "WAIT":
                self._connection.wait(float(step.argument))
            case "SILENCE":
                self._connection.check_silence()
            case "SQL":
                assert self._host is not None
                self._host.rows(step.argument)
            case "LOG":
                pattern = matcher(f"...{step.argument}...", self._names)
                until(lambda: any(map(pattern.fullmatch, self._log())), 5.0)

    def _log(self) -> list[str]:
        """What the host has logged since the script began."""
        assert self._host is not None
        return self._host.log[self._logged :].splitlines()


@contextlib.contextmanager
def connected(script: Script, host: SharedHost, over: str) -> Iterator[Socket]:
    """The script's connection, and beside it the others it wants to be there."""
    port = getattr(host.ports, "submissions" if over == "implicit" else script.listener)
    with contextlib.ExitStack() as stack:
        for _ in range(script.others):
            stack.enter_context(Socket(port, source=script.client))
        yield stack.enter_context(Socket(port, source=script.client, greet=False))


def play_on_host(script: Script, host: SharedHost, over: str) -> None:
    """Play over sockets with a user of the script's own, and undo what it did to the database."""
    names = names_for(host.user() if host.ready else NOBODY, SERVER)
    try:
        with connected(script, host, over) as connection:
            Player(script, connection, names, host).play(over)
    finally:
        for statement in script.undo:
            host.rows(statement)


def play_in_memory(script: Script, folder: Path, over: str) -> None:
    """Play with a fake clock."""
    Player(script, Memory(script, folder, over), names_for(NOBODY, SERVER), None).play(over)
