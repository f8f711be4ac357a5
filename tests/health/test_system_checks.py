"""The checks of disk and memory."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.health import Result, Status
from relaymail.health.checks import disk_space_check, memory_check
from relaymail.health.checks.cgroup import memory_limit
from relaymail.health.checks.system import GB, MB, resident_bytes, statvfs
from tests.conftest import reactor
from tests.support.waiting import until, until_answered


def disk(available: int, total: int = 10 * GB) -> Any:
    """A look at a disk like that."""
    block = MB
    return lambda folder: os.statvfs_result(
        (block, block, total // block, available // block + 100, available // block, 0, 0, 0, 0, 255)
    )


@pytest.mark.parametrize(
    ("available", "status"),
    [
        (5 * GB, Status.HEALTHY),
        (1 * GB, Status.HEALTHY),
        (1 * GB - MB, Status.DEGRADED),
        (100 * MB, Status.DEGRADED),
        (99 * MB, Status.UNHEALTHY),
        (0, Status.UNHEALTHY),
    ],
)
async def test_the_room_left_on_the_disk_decides(tmp_path: Path, available: int, status: Status) -> None:
    check = disk_space_check(tmp_path, reactor=reactor, look=disk(available))
    assert (check.name, check.tags) == ("disk-space", ("system",))
    result = await check.run()
    assert result.status is status
    assert result.data == {
        "availableGB": round(available / GB, 2),
        "totalGB": 10.0,
        "usedPercent": round(100 - available / GB * 10, 2),
    }


async def test_the_real_disk_is_looked_at(tmp_path: Path) -> None:
    result = await disk_space_check(tmp_path, reactor=reactor).run()
    assert result.data["totalGB"] == round(
        os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize / GB, 2
    )


def test_a_folder_that_is_not_there_yet_is_on_the_disk_of_those_above(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for missing in (tmp_path / "a" / "b", tmp_path / "file" / "c"):
        assert statvfs(missing).f_fsid == os.statvfs(tmp_path).f_fsid


async def test_a_disk_that_cannot_be_looked_at_is_unhealthy_and_its_path_is_not_told(tmp_path: Path) -> None:
    def denied(folder: Path) -> os.statvfs_result:
        raise PermissionError(13, "Permission denied", str(folder))

    result = await disk_space_check(tmp_path, reactor=reactor, look=denied).run()
    assert result == Result(Status.UNHEALTHY, "the file system of the data folder cannot be looked at")


async def test_a_disk_that_hangs_takes_one_thread_only(tmp_path: Path) -> None:
    hanging, looks = threading.Event(), []

    def hang(folder: Path) -> os.statvfs_result:
        looks.append(folder)
        hanging.wait()
        return os.statvfs(folder)

    check = disk_space_check(tmp_path, reactor=reactor, look=hang)
    first = Deferred.fromCoroutine(_run(check))
    await until(reactor, lambda: bool(looks))
    first.cancel()
    with pytest.raises(CancelledError):
        await first
    assert await check.run() == Result(Status.UNHEALTHY, "the file system of the data folder does not answer")
    assert len(looks) == 1
    hanging.set()

    async def answers() -> bool:
        return "does not answer" not in str((await check.run()).description)

    await until_answered(reactor, answers)


async def _run(check: Any) -> Result:
    result: Result = await check.run()
    return result


@pytest.mark.parametrize(
    ("percent", "status"),
    [
        (10, Status.HEALTHY),
        (75, Status.HEALTHY),
        (76, Status.DEGRADED),
        (95, Status.DEGRADED),
        (96, Status.UNHEALTHY),
    ],
)
@pytest.mark.parametrize("limit", [512 * MB, None])
async def test_the_memory_in_use_decides(percent: int, status: Status, limit: int | None) -> None:
    allowed = limit or 2 * GB
    used = allowed * percent // 100
    check = memory_check(resident=lambda: used, limit=lambda: limit)
    assert (check.name, check.tags) == ("memory", ("system",))
    result = await check.run()
    assert result.status is status
    assert result.data == {"workingSetMB": round(used / MB, 2)}


async def test_the_real_process_uses_memory() -> None:
    assert 10 * MB < resident_bytes() < 100 * GB
    assert (await memory_check().run()).data["workingSetMB"] == pytest.approx(resident_bytes() / MB, rel=0.2)


def tree(root: Path, **files: str) -> Path:
    """Files under ``root``; ``__`` in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("memory_max", "memory.max").replace(
            "memory_limit", "memory.limit_in_bytes"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_limit_of_version_2_is_found(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__self__cgroup="0::/system.slice/relaymail.service\n",
        sys__fs__cgroup__memory_max="max\n",
    )
    group = tmp_path / "sys/fs/cgroup/system.slice/relaymail.service"
    group.mkdir(parents=True)
    assert memory_limit(tmp_path) is None
    (group.parent / "memory.max").write_text("1000000\n")
    assert memory_limit(tmp_path) == 1_000_000, "a group above limits as well"
    (group / "memory.max").write_text("500000\n")
    assert memory_limit(tmp_path) == 500_000


def test_a_limit_of_version_1_is_found(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__self__cgroup="9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/\n",
        sys__fs__cgroup__memory__memory_limit=f"{2**63 - 4096}\n",
        sys__fs__cgroup__memory__docker__abc__memory_limit="268435456\n",
    )
    assert memory_limit(tmp_path) == 268435456


def test_in_a_container_the_top_of_what_is_visible_counts(tmp_path: Path) -> None:
    tree(
        tmp_path,
        proc__self__cgroup="4:memory:/docker/named-from-outside\n0::/../other\n",
        sys__fs__cgroup__memory__memory_limit="268435456\n",
        sys__fs__cgroup__memory_max="134217728\n",
    )
    assert memory_limit(tmp_path) == 134217728


def test_no_control_group_is_no_limit(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None
    tree(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__memory_max="max\n")
    assert memory_limit(tmp_path) is None
