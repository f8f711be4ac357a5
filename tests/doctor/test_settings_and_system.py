"""Settings, data folder, disk, limits and privileges."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relaymail.doctor import Context, Severity, run_checks
from relaymail.doctor.catalogue import BY_ID
from relaymail.doctor.checks import system_data_folder, system_disk, system_privileges
from relaymail.health.checks.system import GB, MB
from relaymail.settings import examine
from tests.conftest import reactor
from tests.doctor.conftest import NOT_READY, Installation, failed_with, is_skipped, is_well, service
from tests.support.ports import free_port

DATABASE = "Host=127.0.0.1;Port=9;Database=relate;Username=relaymail"


async def test_sound_settings(installation: Installation) -> None:
    installation.set(ConnectionStrings__DefaultConnection=DATABASE, Smtp__Port=587)
    assert is_well(await installation.look("check.settings.valid"))


async def test_every_mistake_is_told(installation: Installation) -> None:
    installation.set(Smtp__Port="many", Smtp__Mx__Enabled="true", Smtp__SecurPort="465")
    outcome = await installation.look("check.settings.valid")
    assert failed_with(
        outcome,
        Severity.ERROR,
        "4 settings are wrong",
        'Smtp:Port is "many"',
        "Smtp:Mx:HostedDomains is empty",
        "did you mean Smtp:SecurePort?",
        "DefaultConnection is missing",
    )


async def test_settings_without_effect_are_a_warning(installation: Installation) -> None:
    installation.set(ConnectionStrings__DefaultConnection=DATABASE, Smtp__Colour="blue", Smtp__Port=587)
    assert failed_with(await installation.look("check.settings.valid"), Severity.WARN, "Smtp:Colour")


@pytest.mark.parametrize(("content", "told"), [("{", "is not JSON"), (None, "cannot be read")])
async def test_a_file_that_cannot_be_read_is_told_and_the_rest_goes_on(
    tmp_path: Path, content: str | None, told: str
) -> None:
    file = tmp_path / "settings.json"
    if content is not None:
        file.write_text(content)
    context = Context(examine(file, {"Data__Directory": str(tmp_path)}), reactor=reactor)
    first, second = await run_checks(
        [BY_ID["check.settings.valid"], BY_ID["check.system.data-folder"]], context
    )
    assert failed_with(first, Severity.ERROR, "1 setting is wrong", str(file), told)
    assert first.finding.data["errors"] == [first.finding.details[0]]
    assert is_well(second) or second.severity is Severity.WARN


async def test_a_data_folder_that_will_be_made(installation: Installation) -> None:
    outcome = await installation.look("check.system.data-folder")
    assert is_well(outcome)
    assert "first start makes it" in outcome.finding.summary


async def test_a_data_folder_in_use(installation: Installation, tmp_path: Path) -> None:
    spool = tmp_path / "data" / "spool"
    spool.mkdir(parents=True)
    (tmp_path / "data").chmod(0o700)
    assert is_well(await installation.look("check.system.data-folder"))
    assert list(spool.iterdir()) == []


async def test_a_data_folder_that_is_open_to_all(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    assert failed_with(
        await installation.look("check.system.data-folder"), Severity.WARN, "open to every user"
    )


async def test_a_data_folder_that_is_a_file(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert failed_with(await installation.look("check.system.data-folder"), Severity.ERROR, "is no folder")


AS_SOMEBODY_ELSE = """
import os, sys
from pathlib import Path
from relaymail.doctor.checks.{module} import {function}
os.setgid(65534); os.setuid(65534)
print({function}({argument}))
"""


def as_somebody_else(module: str, function: str, argument: str) -> str:
    """What a function returns in a process of an ordinary user, as text."""
    script = AS_SOMEBODY_ELSE.format(module=module, function=function, argument=argument)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
@pytest.mark.parametrize("there", [True, False])
def test_a_data_folder_of_somebody_else(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "closed" / "data"
    folder.mkdir(parents=True)
    for place in (*tmp_path.parents, tmp_path, folder.parent):
        if place.owner() == "root" and "pytest" in str(place):
            place.chmod(0o755)
    wanted = folder if there else folder / "deeper"
    found = as_somebody_else("system_data_folder", "_look", f"Path({str(wanted)!r})")
    assert "State.FAIL" in found
    assert ("Permission denied" if there else "may not be made") in found
    assert "uid 65534" in found


class _Room:
    """What statvfs(3) says."""

    def __init__(self, available: int, files: int = 10**6) -> None:
        self.f_bavail, self.f_frsize, self.f_blocks = available // 4096, 4096, 100 * GB // 4096
        self.f_files, self.f_favail = 10**7, files


@pytest.mark.parametrize(
    ("room", "severity"),
    [
        (_Room(50 * GB), None),
        (_Room(900 * MB), Severity.WARN),
        (_Room(90 * MB), Severity.ERROR),
        (_Room(50 * GB, files=10), Severity.ERROR),
    ],
)
async def test_room_on_the_disk(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, room: Any, severity: Severity | None
) -> None:
    monkeypatch.setattr(system_disk, "statvfs", lambda folder: room)
    assert (await installation.look("check.system.disk")).severity is severity


async def test_the_disk_as_it_is(installation: Installation) -> None:
    assert (await installation.look("check.system.disk")).finding.data["totalGB"]


async def test_enough_files_may_be_open(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert is_well(await installation.look("check.system.files"))
    installation.set(Smtp__Limits__Connections=5000)
    outcome = await installation.look("check.system.files")
    assert failed_with(outcome, Severity.WARN, "may open 4096 files", "need 5200")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert is_well(await installation.look("check.system.files"))


async def test_the_limit_of_the_running_host_counts(installation: Installation) -> None:
    async with service(NOT_READY) as port:
        installation.set(Smtp__Port=port, Smtp__Limits__Connections=2**31 - 1)
        outcome = await installation.look("check.system.files")
        assert failed_with(outcome, Severity.WARN, "the running host may open")


async def test_high_ports_need_no_privilege(installation: Installation) -> None:
    installation.set(Smtp__Port=free_port())
    assert is_skipped(await installation.look("check.system.privileges"), "no port below")


async def test_low_ports_of_who_may_have_them(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.set(Smtp__Port=587)
    monkeypatch.setattr(system_privileges, "_unprivileged_start", lambda: 1024)
    monkeypatch.setattr(system_privileges, "_capable", lambda: True)
    assert is_well(await installation.look("check.system.privileges"))
    monkeypatch.setattr(system_privileges, "_capable", lambda: False)
    outcome = await installation.look("check.system.privileges")
    assert failed_with(outcome, Severity.ERROR, "submission port 587", "CAP_NET_BIND_SERVICE")


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
def test_an_ordinary_user_has_no_capability() -> None:
    assert as_somebody_else("system_privileges", "_capable", "").strip() == "False"
    assert json.loads(str(system_privileges._capable()).lower()) is True


def test_a_file_that_is_no_folder_is_told_by_the_check_itself(tmp_path: Path) -> None:
    look: Callable[[Path], Any] = system_data_folder._look
    assert "first start makes it" in look(tmp_path / "new").summary
