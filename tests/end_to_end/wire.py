"""SMTP from the client's side, byte by byte: what smtplib would mend, refuse or hide is sent as it is."""

from __future__ import annotations

import base64
import re
import socket
import ssl
from types import TracebackType
from typing import NamedTuple, Self

LIMIT = 120.0
"""Seconds for any one answer."""


class Answer(NamedTuple):
    """A reply, of one line or several."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """Its lines without their codes, as one text."""
        return "\n".join(self.lines)

    @property
    def start(self) -> str:
        """Code and enhanced code, as in ``250 2.1.0``."""
        return f"{self.code} {self.text.split(' ', 1)[0]}"

    @property
    def id(self) -> str:
        """The message's id, of the reply that promises it is stored."""
        match = re.fullmatch(r"2\.0\.0 Ok: queued as ([0-9a-f-]{36})", self.text)
        assert match is not None, self
        return match[1]


class Closed(Exception):
    """The server has closed the connection."""


class Wire:
    """One connection. Use it as a context manager."""

    def __init__(self, port: int, *, host: str = "127.0.0.1", source: str = "", greet: bool = True) -> None:
        """Connect (from the address ``source``) and read the greeting."""
        self.socket: socket.socket = socket.create_connection(
            (host, port), LIMIT, (source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""
        self.greeting = self.reply() if greet else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection without a word."""
        self.socket.close()

    def reset(self) -> None:
        """Break the connection off, as a client that died does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send exactly this."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line. Raises :exc:`Closed`."""
        while b"\n" not in self._read:
            try:
                more = self.socket.recv(65536)
            except ConnectionError as error:
                raise Closed from error
            if not more:
                raise Closed(self._read)
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        assert line.endswith(b"\r"), line
        return line[:-1]

    def reply(self) -> Answer:
        """The next reply. Raises :exc:`Closed`."""
        lines = []
        while True:
            line = self.line().decode("ascii")
            lines.append(line[4:])
            if line[3:4] != "-":
                return Answer(int(line[:3]), tuple(lines))

    def rest(self) -> bytes:
        """Everything until the server closes."""
        data, self._read = self._read, b""
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                return data
            if not more:
                return data
            data += more

    def command(self, line: str | bytes) -> Answer:
        """Send a line and return its reply."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def hello(self, name: str = "client.test") -> Answer:
        """Say EHLO."""
        answer = self.command(f"EHLO {name}")
        assert answer.code == 250, answer
        return answer

    def starttls(self) -> None:
        """Go over to TLS and say EHLO again; the certificate is not what is tested here."""
        answer = self.command("STARTTLS")
        assert answer.start == "220 2.0.0", answer
        self.wrap()
        self.hello()

    def wrap(self) -> None:
        """Do the TLS handshake."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.socket = context.wrap_socket(self.socket)

    def login(self, address: str, key: str) -> Answer:
        """AUTH PLAIN in one line."""
        secret = base64.b64encode(f"\0{address}\0{key}".encode()).decode()
        return self.command(f"AUTH PLAIN {secret}")

    def envelope(self, sender: str, *recipients: str) -> list[Answer]:
        """MAIL and RCPTs; the replies to all of them."""
        return [
            self.command(f"MAIL FROM:<{sender}>"),
            *(self.command(f"RCPT TO:<{recipient}>") for recipient in recipients),
        ]

    def data(self, raw: bytes) -> Answer:
        """DATA and the message; the reply behind the dot."""
        answer = self.command("DATA")
        assert answer.code == 354, answer
        self.send(stuffed(raw))
        return self.reply()

    def message(self, raw: bytes, sender: str, *recipients: str) -> Answer:
        """A whole transaction in which every recipient is accepted."""
        for answer in self.envelope(sender, *recipients):
            assert answer.code == 250, answer
        return self.data(raw)


def stuffed(raw: bytes) -> bytes:
    """``raw`` and the final dot, as a client sends them (RFC 5321 4.5.2); ``raw`` must end in CRLF."""
    assert not raw or raw.endswith(b"\r\n")
    if raw.startswith(b"."):
        raw = b"." + raw
    return raw.replace(b"\r\n.", b"\r\n..") + b".\r\n"
