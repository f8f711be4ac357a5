"""No mail is taken that cannot be kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from relaymail.hosting.room import LOOK_INTERVAL, Room
from relaymail.smtp import reply

GIB = 1024**3


class Disk:
    """A disk of ``whole`` GiB with ``free`` GiB free: what statvfs(3) would say."""

    def __init__(self, whole: float, free: float) -> None:
        self.whole, self.free = whole, free

    def run(self, function: Any, path: Path) -> Deferred[Any]:
        return succeed(
            SimpleNamespace(
                f_frsize=4096, f_blocks=int(self.whole * GIB / 4096), f_bavail=int(self.free * GIB / 4096)
            )
        )


def test_a_disk_is_full_below_both_a_gibibyte_and_five_percent() -> None:
    disk, clock = Disk(100, 1.1), Clock()
    room = Room(Path("/"), lambda: 0.0, reactor=clock, run=disk.run)
    room.start()
    assert room.refusal() is None
    disk.free = 0.9
    clock.advance(LOOK_INTERVAL)
    assert room.refusal() is reply.NO_ROOM
    disk.whole = 10
    clock.advance(LOOK_INTERVAL)
    assert room.refusal() is None


def test_a_store_that_is_slow_is_full() -> None:
    waits = [0.0]
    room = Room(Path("/"), lambda: waits[0], reactor=Clock(), run=Disk(100, 50).run)
    assert room.refusal() is None
    waits[0] = 2.1
    assert room.refusal() is reply.NO_ROOM
