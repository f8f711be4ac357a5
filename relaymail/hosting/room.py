"""Whether there is room for another message: on the disk of the spool, and in the store's queue."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.smtp import reply
from relaymail.smtp.reply import Reply

log = Logger()

LOOK_INTERVAL: Final = 10.0
"""Seconds between looks at the disk."""
LEAST_FREE_SHARE: Final = 0.05
LEAST_FREE_OCTETS: Final = 1024**3
"""The disk is full when less than both is free."""
LONGEST_WAIT: Final = 2.0
"""Seconds a message may wait for the store before no more are taken."""


class Room:
    """Says why no message can be taken, or ``None``.

    :param longest_wait: seconds that the first message has been waiting for the store.
    :param run: runs a function in a thread; a disk can be slow to answer.
    """

    def __init__(
        self, directory: Path, longest_wait: Callable[[], float], *, reactor: Any, run: Callable[..., Any]
    ) -> None:
        self._directory = directory
        self._longest_wait = longest_wait
        self._run = run
        self._disk_full = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Begin to look at the disk."""
        self._looking.start(LOOK_INTERVAL)

    async def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    def refusal(self) -> Reply | None:
        """The reply to MAIL while there is no room."""
        return reply.NO_ROOM if self._disk_full or self._longest_wait() > LONGEST_WAIT else None

    async def _look(self) -> None:
        try:
            disk = await self._run(os.statvfs, self._directory)
        except OSError as error:
            log.error("Cannot look at the spool folder: {why}", why=error.strerror)
            return
        free, whole = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
        full = free < min(LEAST_FREE_SHARE * whole, LEAST_FREE_OCTETS)
        if full != self._disk_full:
            self._disk_full = full
            log.warn(
                "The disk of the spool folder {state}: {free} MiB free",
                state="is full, no mail is taken" if full else "has room again",
                free=free // 1024**2,
            )
