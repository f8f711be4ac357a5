"""A running PostgreSQL: telling it from a stale pid file, starting one, waiting for its end."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall

READY = "ready"
STOPPING = "stopping"
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Running:
    """What ``postmaster.pid`` says of a server that was seen to live."""

    pid: int
    sockets: Path
    port: int
    status: str


def recorded_pid(data: Path) -> int | None:
    """The pid in ``postmaster.pid``, dead or alive."""
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def find_running(data: Path) -> Running | None:
    """The server that runs on the folder ``data``; None if none does, whatever its pid file says.

    The pid alone proves nothing: after a kill -9 (all the more in a new container) it may be any
    process's. The kernel names the process that listens on the recorded socket: it must be that one.
    """
    try:
        lines = [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
        pid, recorded, port, sockets = int(lines[0]), Path(lines[1]), int(lines[3]), Path(lines[4])
        status = lines[7] if len(lines) > 7 else ""
        if not recorded.samefile(data) or _listener(sockets / f".s.PGSQL.{port}") != pid:
            return None
    except (OSError, ValueError, IndexError):
        return None
    return Running(pid, sockets, port, status)


def _listener(path: Path) -> int:
    """The pid of the process that listens on a Unix socket (SO_PEERCRED of unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        probe.connect(str(path))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def is_alive(pid: int) -> bool:
    """Whether there is such a process and it is more than an entry waiting for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except (OSError, IndexError):
        return False


class Child(ProcessProtocol):
    """A process of ours, of which only its end is of interest."""

    def __init__(self) -> None:
        self.pid = 0
        self.exit: str | None = None
        """How it ended; None while it lives."""
        self.succeeded = False
        self._waiting: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        """Called by the reactor."""
        assert self.transport is not None
        self.pid = self.transport.pid

    def processEnded(self, reason: Any) -> None:
        """Called by the reactor."""
        end = reason.value
        self.succeeded = end.exitCode == 0
        self.exit = f"killed by signal {end.signal}" if end.signal else f"exit code {end.exitCode}"
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def ended(self) -> Deferred[None]:
        """Fires when the process is no more."""
        waiter: Deferred[None] = Deferred(self._waiting.remove)
        if self.exit is None:
            self._waiting.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self.exit is None:
            os.kill(self.pid, number)


def spawn(reactor: Any, command: Sequence[str], log: int, stale: int | None = None) -> Child:
    """Start ``command`` in ``/``, its output to the descriptor ``log``, without our environment.

    :param stale: a pid that PostgreSQL may find in its lock files and that is known to be nobody's: it takes
        it for its grandparent's and the lock for stale, while its check of shared memory stays in force.
    """
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    if stale is not None:
        environment["PG_GRANDPARENT_PID"] = str(stale)
    child = Child()
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        reactor.spawnProcess(
            child, command[0], command, environment, "/", childFDs={0: nothing, 1: log, 2: log}
        )
    finally:
        os.close(nothing)
    return child


class Adopted:
    """A server that a host which is no more has left running."""

    def __init__(self, pid: int, reactor: Any) -> None:
        self.pid = pid
        self._reactor = reactor

    @property
    def exit(self) -> str | None:
        """How it ended, as far as that can be known; None while it lives."""
        return None if is_alive(self.pid) else "gone"

    def ended(self) -> Deferred[None]:
        """Fires when the process is no more."""
        over: Deferred[None] = Deferred(lambda _: looking.stop())

        def look() -> None:
            if self.exit is not None:
                looking.stop()
                over.callback(None)

        looking = LoopingCall(look)
        looking.clock = self._reactor
        looking.start(_LOOK, now=False)
        return over

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self.exit is None:
            os.kill(self.pid, number)
