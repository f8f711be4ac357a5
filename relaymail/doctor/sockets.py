"""Which program listens on a port, as far as proc(5) tells us."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_LISTEN = "0A"


class Program(NamedTuple):
    """A process that listens."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def listening_program(port: int) -> Program | None:
    """Who listens on a TCP port of this machine; ``None``: nobody, or it is not for us to know. Blocks."""
    inodes = set(_inodes(port))
    if not inodes:
        return None
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and inodes & set(_sockets(entry)):
            try:
                name = (entry / "comm").read_text(errors="replace").strip()
            except OSError:
                continue
            return Program(int(entry.name), name)
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"


def _sockets(process: Path) -> Iterator[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(descriptor)
        except OSError:
            continue
