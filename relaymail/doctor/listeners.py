"""The ports the settings ask for, and who answers there: nobody, our host, or another service."""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Literal

from relaymail.doctor.sockets import Program, listening_program
from relaymail.health.loopback import reachable
from relaymail.settings import Settings
from relaymail.smtp.policy import is_in

PATIENCE: Final = 7.0
"""Seconds for all that is said on a connection."""
CONNECT: Final = 3.0
"""Seconds for the connection itself."""
LONGEST: Final = 8192
"""Bytes read of an answer."""

Name = Literal["submission", "submissions", "mx", "health"]
State = Literal["free", "ours", "another", "closed", "denied", "silent"]
"""``free``: nobody listens and we could; ``closed``: nobody listens and nobody can, ``denied``: not we;
``silent``: somebody listens and says nothing."""

_GREETING = re.compile(r"220[ -](\S+) ESMTP relaymail\b|421[ -]4\.(?:3\.2|7\.[01]) ")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that the settings ask for."""

    name: Name
    key: str
    """The setting that names it."""
    address: str
    """One that it listens on; wildcards allowed."""
    port: int
    proxied: bool = False
    """Whether we would have to send a PROXY header."""

    @property
    def target(self) -> str:
        """Where to connect to."""
        return reachable(self.address)

    def __str__(self) -> str:
        return f"{self.name} port {self.port}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a port showed."""

    listener: Listener
    state: State
    said: str = ""
    """The first line of what answered, or why nothing did; of a peer, so not to be trusted."""
    program: Program | None = None
    """Who listens, where that can be told."""
    certificate: bytes | None = None
    """The TLS certificate it presented (DER)."""
    tls_problem: str = ""
    """Why there is none, though TLS was tried."""

    @property
    def greets_as(self) -> str:
        """The name in the greeting of a relaymail host; empty where there is none."""
        match = _GREETING.match(self.said)
        return (match[1] or "") if match else ""

    @property
    def ours(self) -> bool:
        """Whether a relaymail host answers."""
        return self.state == "ours"


def asked_for(settings: Settings, *, has_certificate: bool) -> list[Listener]:
    """The ports with numbers; sockets handed over by systemd and free ports (0) are not known here."""
    smtp, url = settings.smtp, settings.health_check.url
    ends = smtp.endpoints
    wanted: list[tuple[Name, str, int, str | None]] = []
    if smtp.enabled:
        wanted.append(("submission", "Smtp:Port", smtp.port, ends.submission))
        if has_certificate:
            wanted.append(("submissions", "Smtp:SecurePort", smtp.secure_port, ends.smtps))
        if smtp.mx.enabled:
            wanted.append(("mx", "Smtp:Mx:Port", smtp.mx.port, ends.mx))
    address = next((a for a in smtp.bind_addresses if ":" not in a), next(iter(smtp.bind_addresses), "::1"))
    target = reachable(address)
    listeners = [
        Listener(name, key, address, port, proxied=is_in(smtp.proxy_networks, target))
        for name, key, port, endpoint in wanted
        if port and endpoint is None
    ]
    if url.port:
        host = url.host or "0.0.0.0"  # noqa: S104 - compared, not bound
        listeners.append(
            Listener("health", "HealthCheck:Url", "127.0.0.1" if host == "localhost" else host, url.port)
        )
    return listeners


def look_at(listener: Listener) -> Seen:
    """Connect, and read what answers; where nobody does, try whether the port is free. Blocks."""
    try:
        connection = socket.create_connection((listener.target, listener.port), CONNECT)
    except (ConnectionRefusedError, TimeoutError):
        return _unanswered(listener)
    except OSError as error:
        return Seen(listener, "closed", error.strerror or str(error))
    with closing(connection):
        program = listening_program(listener.port)
        try:
            talk = Talk(connection, time.monotonic() + PATIENCE)
            if listener.name == "health":
                return _health(listener, talk, program)
            return _smtp(listener, talk, program)
        except TimeoutError:
            return Seen(listener, "silent", f"no answer within {PATIENCE:g} s", program)
        except OSError as error:
            return Seen(listener, "another", error.strerror or str(error), program)


def _unanswered(listener: Listener) -> Seen:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            trial.bind((listener.address, listener.port))
    except OSError as error:
        said = error.strerror or str(error)
        if error.errno == errno.EACCES:
            return Seen(listener, "denied", said)
        return Seen(listener, "closed", said, listening_program(listener.port))
    return Seen(listener, "free")


def _smtp(listener: Listener, talk: Talk, program: Program | None) -> Seen:
    if listener.proxied:
        talk.say(b"PROXY UNKNOWN")
    if listener.name == "submissions":
        try:
            with closing(talk.secure(listener.target)) as secure:
                said = secure.reply()[0]
                state: State = "ours" if _GREETING.match(said) else "another"
                secure.say(b"QUIT")
                return Seen(listener, state, said, program, secure.certificate)
        except (ssl.SSLError, ConnectionError) as error:
            return Seen(listener, "another", _reason(error), program, tls_problem=_reason(error))
    said = talk.reply()[0]
    if not _GREETING.match(said):
        return Seen(listener, "another", said, program)
    if said.startswith("421"):
        return Seen(listener, "ours", said, program, tls_problem="it takes no sessions at present")
    try:
        certificate, problem = _starttls(listener, talk)
    except (TimeoutError, ConnectionError) as error:
        certificate, problem = None, f"no answer to EHLO or STARTTLS: {error.strerror or 'timed out'}"
    return Seen(listener, "ours", said, program, certificate, problem)


def _starttls(listener: Listener, talk: Talk) -> tuple[bytes | None, str]:
    """The certificate, or why there is none (RFC 3207 4)."""
    talk.say(b"EHLO doctor.invalid")
    if not any(line[4:].strip().upper() == "STARTTLS" for line in talk.reply()):
        talk.say(b"QUIT")
        return None, "STARTTLS is not offered"
    talk.say(b"STARTTLS")
    answer = talk.reply()[0]
    if not answer.startswith("220"):
        return None, f"STARTTLS was answered with {answer}"
    try:
        with closing(talk.secure(listener.target)) as secure:
            secure.say(b"QUIT")
            return secure.certificate, ""
    except (ssl.SSLError, ConnectionError, TimeoutError) as error:
        return None, _reason(error)


def _health(listener: Listener, talk: Talk, program: Program | None) -> Seen:
    talk.say(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n")
    said, body = talk.answer()
    try:
        report = json.loads(body)
        ours = isinstance(report, dict) and {"status", "totalDuration", "checks"} <= set(report)
    except ValueError:
        ours = False
    return Seen(listener, "ours" if ours else "another", said, program)


class Talk:
    """A connection that has until ``end`` (of the monotonic clock), however slowly its peer speaks.

    Its methods raise ``TimeoutError`` then.
    """

    def __init__(self, connection: socket.socket, end: float) -> None:
        self._connection = connection
        self._end = end

    def _hurry(self) -> None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)

    def say(self, line: bytes) -> None:
        """Send a line."""
        self._hurry()
        self._connection.sendall(line + b"\r\n")

    def _more(self) -> bytes:
        self._hurry()
        return self._connection.recv(LONGEST)

    def reply(self) -> list[str]:
        """The lines of one reply (RFC 5321 4.2.1), at least one, empty where the peer has closed."""
        received = b""
        while len(received) < LONGEST and (part := self._more()):
            received += part
            if any(line[3:4] != b"-" for line in received.split(b"\n")[:-1]):
                break
        lines = received.decode("utf-8", "replace").split("\n")
        return [line.rstrip("\r") for line in lines if line] or [""]

    def answer(self) -> tuple[str, bytes]:
        """The first line and the body of an answer in HTTP, as long as it says or until the peer closes."""
        received, head, body = b"", b"", b""
        while len(received) < LONGEST and (part := self._more()):
            received += part
            head, end, body = received.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if end and length and len(body) >= int(length[1]):
                break
        return head.split(b"\r\n", 1)[0].decode("latin-1"), body

    def secure(self, name: str) -> Talk:
        """The same under TLS, whoever it is: what the certificate is worth is judged elsewhere."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._hurry()
        return Talk(context.wrap_socket(self._connection, server_hostname=name), self._end)

    @property
    def certificate(self) -> bytes | None:
        """The peer's (DER)."""
        secure = self._connection
        return secure.getpeercert(binary_form=True) if isinstance(secure, ssl.SSLSocket) else None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or 'the handshake failed'}"
    return f"no TLS: {error.strerror or 'the connection was closed'}"
