"""Checks of the machine: room on the disk, memory in use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThreadPool

from relaymail.health.checks.cgroup import memory_limit
from relaymail.health.result import HealthCheck, Result, Status

MB = 1024**2
GB = 1024**3

DISK_DEGRADED_BELOW = 1 * GB
DISK_UNHEALTHY_BELOW = 100 * MB

DEFAULT_MEMORY = 2 * GB
"""What the process may use where no control group says."""
MEMORY_DEGRADED_ABOVE = 75.0
MEMORY_UNHEALTHY_ABOVE = 95.0
"""Percent."""


class _DiskSpace:
    def __init__(self, folder: Path, look: Callable[[Path], os.statvfs_result], reactor: Any) -> None:
        self._folder = folder
        self._look = look
        self._reactor = reactor
        self._busy = False

    async def run(self) -> Result:
        if self._busy:
            # A run before this one was given up, but its thread still hangs: one is enough
            return Result(Status.UNHEALTHY, "the file system of the data folder does not answer")
        self._busy = True
        try:
            found: os.statvfs_result = await deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), self._look_in_thread
            )
        except OSError:
            return Result(Status.UNHEALTHY, "the file system of the data folder cannot be looked at")
        return _judge_disk(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def _look_in_thread(self) -> os.statvfs_result:
        try:
            return self._look(self._folder)
        finally:
            self._busy = False


def statvfs(folder: Path) -> os.statvfs_result:
    """The file system of ``folder``, or of the nearest folder above it that exists. Blocks.

    :raises OSError: it cannot be looked at.
    """
    absolute = folder.absolute()
    for candidate in (absolute, *absolute.parents):
        try:
            return os.statvfs(candidate)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return os.statvfs("/")


def disk_space_check(
    folder: Path, *, reactor: Any, look: Callable[[Path], os.statvfs_result] = statvfs
) -> HealthCheck:
    """Room on the file system of ``folder``, asked for in a thread: a file system can hang."""
    return HealthCheck("disk-space", ("system",), _DiskSpace(folder, look, reactor).run)


def _judge_disk(available: int, total: int) -> Result:
    used = 100.0 * (total - available) / total if total else 100.0
    data = {
        "availableGB": round(available / GB, 2),
        "totalGB": round(total / GB, 2),
        "usedPercent": round(used, 2),
    }
    status = Status.HEALTHY
    if available < DISK_DEGRADED_BELOW:
        status = Status.UNHEALTHY if available < DISK_UNHEALTHY_BELOW else Status.DEGRADED
    return Result(status, f"{available / GB:.2f} GB of {total / GB:.2f} GB available", data)


def resident_bytes() -> int:
    """Resident set of this process, from proc(5), which answers from memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_check(
    *, resident: Callable[[], int] = resident_bytes, limit: Callable[[], int | None] = memory_limit
) -> HealthCheck:
    """Resident set against what the control group allows, or :data:`DEFAULT_MEMORY`."""

    async def run() -> Result:
        used, allowed = resident(), limit() or DEFAULT_MEMORY
        percent = 100.0 * used / allowed
        status = Status.HEALTHY
        if percent > MEMORY_DEGRADED_ABOVE:
            status = Status.UNHEALTHY if percent > MEMORY_UNHEALTHY_ABOVE else Status.DEGRADED
        return Result(
            status,
            f"{used / MB:.0f} MB of {allowed / MB:.0f} MB in use",
            {"workingSetMB": round(used / MB, 2)},
        )

    return HealthCheck("memory", ("system",), run)
