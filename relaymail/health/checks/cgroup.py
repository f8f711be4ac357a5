"""How much memory the control group of this process allows (cgroups(7), versions 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

UNLIMITED = 2**60
"""Version 1 says "no limit" with a number near 2**63."""


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes, the least of the group's own limit and those above it; ``None``: there is none.

    The files are the kernel's and answer from memory.

    :param root: where ``proc`` and ``sys`` are.
    """
    limits = [limit for path in _limit_files(root) if (limit := _read(path)) is not None]
    return min(limits, default=None)


def _limit_files(root: Path) -> Iterator[Path]:
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers == "":
            yield from _upwards(root / "sys/fs/cgroup", group, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _upwards(root / "sys/fs/cgroup/memory", group, "memory.limit_in_bytes")


def _upwards(base: Path, group: str, name: str) -> Iterator[Path]:
    """The file ``name`` of a group and of all groups above it.

    In a container the group may be named as seen from outside: what is not there is passed over, and the
    top is the container's own.
    """
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield base.joinpath(*parts[:depth], name)


def _read(path: Path) -> int | None:
    for text in _lines(path):
        if text.isdigit() and int(text) < UNLIMITED:
            return int(text)
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
