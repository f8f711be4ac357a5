"""The next host, as far as outbound mail sees it: takes messages, keeps them, and answers as a test wants."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from tests.support.polling import LIMIT, until
from tests.support.ports import free_port


@dataclass
class Taken:
    """A message that came with its final dot."""

    sender: str
    """As behind ``MAIL FROM:``, parameters included."""
    recipients: list[str]
    data: bytes
    """Dots unstuffed."""
    connection: int
    """Counted from 1."""

    @property
    def subject(self) -> str:
        """Of the header."""
        for line in self.data.split(b"\r\n\r\n")[0].split(b"\r\n"):
            if line.lower().startswith(b"subject:"):
                return line.partition(b":")[2].strip().decode()
        return ""


Answer = Callable[[str], "str | None"]


@dataclass
class Sink:
    """Listens on a loopback address; each connection has a thread.

    ``answer`` is asked for the reply to each command line, and with ``.`` behind each message: ``None`` is
    the usual one, ``""`` closes without a word. ``dot`` is waited for before a message is answered. What was
    answered with anything but a 2xx is not kept.
    """

    address: str = "127.0.0.1"
    port: int = 0
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE", "DSN")
    name: str = "sink.test"
    greeting: str = "220 sink.test ESMTP"
    answer: Answer = lambda line: None
    taken: list[Taken] = field(default_factory=list)
    ended: list[Taken] = field(default_factory=list)
    """Messages whose dot has come, answered or not."""
    commands: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    open: int = 0
    most_open: int = 0

    def __post_init__(self) -> None:
        self.dot = threading.Event()
        self.dot.set()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listening: socket.socket | None = None
        self.port = self.port or free_port()
        self.start()

    def start(self) -> None:
        """Listen, again on the same port."""
        self._listening = socket.create_server((self.address, self.port), backlog=200)
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections and break off those there are."""
        self.dot.set()
        if self._listening is not None:
            # shutdown() wakes the thread that accepts
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        for connection in list(self._sockets):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def subjects(self) -> list[str]:
        """Of what was taken, in order."""
        return [message.subject for message in list(self.taken)]

    def until_taken(self, count: int, limit: float = LIMIT) -> None:
        """Wait for so many messages."""
        until(lambda: len(self.taken) >= count, limit)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            number = self.connections
            self.open += 1
            self.most_open = max(self.most_open, self.open)
        self._sockets.add(connection)
        try:
            with connection, suppress(OSError), connection.makefile("rb") as lines:
                self._converse(connection, iter(lines), number)
        finally:
            self._sockets.discard(connection)
            with self._lock:
                self.open -= 1

    def _converse(self, connection: socket.socket, lines: Iterator[bytes], number: int) -> None:
        connection.sendall(f"{self.greeting}\r\n".encode())
        sender, recipients = "", list[str]()
        for raw in lines:
            line = raw.decode().rstrip("\r\n")
            verb = line[:4].upper()
            self.commands[verb] += 1
            reply = self.answer(line)
            if reply is None:
                reply = self._usual(verb) if recipients or verb != "DATA" else "554 5.5.1 no recipients"
            if reply == "":
                return
            connection.sendall(f"{reply}\r\n".encode())
            if verb == "MAIL" and reply[0] == "2":
                sender, recipients = line.partition(":")[2], []
            elif verb == "RCPT" and reply[0] == "2":
                recipients.append(line.partition(":")[2])
            elif verb == "DATA" and reply[0] == "3":
                data = b"".join(_content(lines))
                answer = self._end(Taken(sender, recipients, data, number))
                if answer == "":
                    return
                connection.sendall(f"{answer}\r\n".encode())
            elif verb == "QUIT" or reply.startswith("421"):
                return

    def _usual(self, verb: str) -> str:
        if verb == "EHLO":
            last = len(self.extensions)
            return "\r\n".join(
                f"250{' ' if n == last else '-'}{text}"
                for n, text in enumerate((self.name, *self.extensions))
            )
        return {"DATA": "354 go on", "QUIT": "221 2.0.0 bye"}.get(verb, "250 2.0.0 ok")

    def _end(self, message: Taken) -> str:
        with self._lock:
            self.ended.append(message)
        self.dot.wait()
        answer = self.answer(".")
        if answer is None:
            answer = "250 2.0.0 ok"
        if answer.startswith("2"):
            with self._lock:
                self.taken.append(message)
        return answer


def _content(lines: Iterator[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line == b".\r\n":
            return
        yield line[1:] if line.startswith(b".") else line
    raise OSError("the message did not end")
