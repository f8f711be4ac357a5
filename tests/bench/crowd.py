"""A crowd of clients in a process of its own: some idle, some sending one octet a second."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import resource
import selectors
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

TICK: Final = 0.02
LIMIT: Final = 120.0
"""Seconds for the whole crowd to gather."""
ENVELOPE: Final = b"MAIL FROM:<slow@example.org>\r\nRCPT TO:<demo@example.test>\r\nDATA\r\n"


@dataclass(frozen=True)
class Crowd:
    """Who is there. ``tls``: ``""``, ``"starttls"`` or ``"implicit"``."""

    port: int
    idle: int = 0
    slow: int = 0
    tls: str = ""


@contextlib.contextmanager
def gathered(crowd: Crowd) -> Iterator[None]:
    """The crowd is there and stays for the length of the block; everybody has said EHLO at the least."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(crowd, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(LIMIT):
            raise SystemExit(f"not all of {crowd} got in within {LIMIT:g} s")
        ours.recv()
        yield
        if not process.is_alive() or ours.poll():
            raise SystemExit(f"some of {crowd} were thrown out")
    finally:
        with contextlib.suppress(OSError):
            ours.send("go")
        process.join(LIMIT)


def _run(crowd: Crowd, parent: Connection) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle = [_arrive(crowd) for _ in range(crowd.idle)]
    slow = [_arrive(crowd) for _ in range(crowd.slow)]
    for client in slow:
        client.sendall(ENVELOPE)
        _until(client, b"354 ")
    parent.send("here")
    if _drip(idle, slow, parent):
        parent.send("thrown out")
        parent.poll(LIMIT)
    for client in (*idle, *slow):
        client.close()


def _drip(idle: list[socket.socket], slow: list[socket.socket], parent: Connection) -> bool:
    """Send an octet of each slow client every second, evenly spread, until told to go. Whether the server has
    said anything: it means the end of a session."""
    began, sent = time.monotonic(), 0
    with selectors.DefaultSelector() as heard:
        for client in (*idle, *slow):
            heard.register(client, selectors.EVENT_READ)
        while not parent.poll(TICK):
            due = int((time.monotonic() - began) * len(slow))
            for n in range(sent, due):
                slow[n % len(slow)].sendall(b"\n" if n // len(slow) % 70 == 69 else b"x")
            sent = due
            if any(_spoken(key.fileobj) for key, _ in heard.select(0)):
                return True
    return False


def _spoken(client: object) -> bool:
    # Under TLS what is readable may be a session ticket
    if not isinstance(client, ssl.SSLSocket):
        return True
    client.setblocking(False)
    try:
        client.recv(1)
    except ssl.SSLWantReadError:
        return False
    finally:
        client.setblocking(True)
    return True


def _arrive(crowd: Crowd) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", crowd.port), LIMIT)
    if crowd.tls == "implicit":
        client = _context().wrap_socket(client)
    _until(client, b"220 ")
    _hello(client)
    if crowd.tls == "starttls":
        client.sendall(b"STARTTLS\r\n")
        _until(client, b"220 ")
        client = _context().wrap_socket(client)
        _hello(client)
    return client


@functools.cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _hello(client: socket.socket) -> None:
    client.sendall(b"EHLO slow.example.org\r\n")
    _until(client, b"250 ")


def _until(client: socket.socket, start: bytes) -> None:
    """Read up to a line that begins with ``start``."""
    got = b""
    while not (got.endswith(b"\r\n") and got.split(b"\r\n")[-2].startswith(start)):
        more = client.recv(4096)
        if not more:
            raise SystemExit(f"wanted {start!r}, got {got!r}")
        got += more
