"""The units for systemd."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
UNITS = Path("etc/systemd/system")
SERVICE = "relaymail.service"
SOCKETS = ("relaymail-submission.socket", "relaymail-smtps.socket", "relaymail-mx.socket")
WORST = 2.0
"""The exposure that `systemd-analyze security` may find."""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def installed(root: Path, *, with_sockets: bool) -> Path:
    """A machine's file system below ``root`` with the units as the documentation installs them."""
    program = root / "opt/relaymail/bin/twistd"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    (root / UNITS).mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    shutil.copy(DEPLOY / SERVICE, root / UNITS)
    if with_sockets:
        for name in SOCKETS:
            shutil.copy(DEPLOY / name, root / UNITS)
        shutil.copytree(DEPLOY / f"{SERVICE}.d", root / UNITS / f"{SERVICE}.d")
    return root


@needs_systemd
@pytest.mark.parametrize("with_sockets", [False, True])
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path, with_sockets: bool) -> None:
    root = installed(tmp_path, with_sockets=with_sockets)
    units = [SERVICE, *(SOCKETS if with_sockets else ())]
    verified = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", *units], capture_output=True, text=True
    )
    # Misspelt settings are told, but do not make it fail
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@needs_systemd
def test_the_service_is_shut_in() -> None:
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(DEPLOY / SERVICE)],
        capture_output=True,
        text=True,
        check=True,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert exposure is not None, result.stdout
    assert float(exposure[1]) < WORST


def unit(name: str) -> configparser.ConfigParser:
    """A unit's settings; of one given twice the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(DEPLOY / name)
    return parsed


def test_the_service_is_stopped_as_the_host_wants_it() -> None:
    service = unit(SERVICE)["Service"]
    assert service["KillSignal"] == "SIGTERM"
    # An embedded PostgreSQL must outlive the drain
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) >= 90
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "78"


def test_every_socket_has_the_name_that_its_listener_asks_for() -> None:
    text = (DEPLOY / f"{SERVICE}.d" / "sockets.conf").read_text()
    asked = dict(
        re.findall(r"^Environment=Smtp__Endpoints__(\w+)=systemd:domain=INET6:name=(\w+)$", text, re.M)
    )
    assert asked == {"Submission": "submission", "Smtps": "smtps", "Mx": "mx"}
    for name in SOCKETS:
        socket = unit(name)["Socket"]
        assert name == f"relaymail-{socket['FileDescriptorName']}.socket"
        assert socket["FileDescriptorName"] in asked.values()
        assert socket["Service"] == SERVICE
        # One descriptor for a name: Twisted knows no two
        assert socket["BindIPv6Only"] == "both"
        for line in ("Requires", "After", "Sockets"):
            assert re.search(rf"^{line}=.*\b{name}\b", text, re.M)
