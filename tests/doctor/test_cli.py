"""``relaymail doctor`` as a program: reports, exit codes, what it does without settings and database."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relaymail.doctor import CHECKS
from tests.cli.conftest import settings
from tests.support.postgres import unused_port

QUIET = {
    "Smtp__Port": "0",
    "Smtp__SecurePort": "0",
    "HealthCheck__Url": "http://localhost:0",
    "Dns__Servers__0": "127.0.0.1:9",
    "Api__BaseUrl": "http://127.0.0.1:9",
}
"""Nothing of this machine is asked."""
EMBEDDED = {"Data__EmbeddedPostgres": "true"}


def doctor(folder: Path, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "relaymail.cli", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **QUIET, **environ},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def found(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {check["id"]: check for check in json.loads(done.stdout)["checks"]}


def test_doctor_alone_runs_every_check_without_host_and_database(tmp_path: Path) -> None:
    done = doctor(tmp_path, {}, "doctor")
    assert done.returncode == 1
    for check in CHECKS:
        assert check.id in done.stdout
    assert "ERROR  check.settings.valid" in done.stdout
    assert f"{len(CHECKS)} checks:" in done.stdout.splitlines()[-1]
    assert "More: relaymail doctor explain check.settings.valid" in done.stdout


def test_options_alone_run_too(tmp_path: Path) -> None:
    done = doctor(tmp_path, {}, "doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_code"]) == (1, 1)
    assert [check["id"] for check in report["checks"]] == [check.id for check in CHECKS]
    assert report["passed"] + report["failed"] + report["skipped"] == len(CHECKS)
    failed = found(done)["check.settings.valid"]
    assert failed["state"] == "fail"
    assert failed["failed_with"] == failed["severity"] == "error"
    assert set(failed["page"]["fix"]) == {"compose", "systemd", "kubernetes"}


@pytest.mark.parametrize(
    ("environ", "code"),
    [(EMBEDDED, 0), ({**EMBEDDED, "Smtp__Colour": "blue"}, 3), ({}, 1)],
)
def test_the_exit_code_tells_the_severity(tmp_path: Path, environ: Mapping[str, str], code: int) -> None:
    environ = {**environ, "Smtp__Port": str(unused_port())}
    done = doctor(tmp_path, environ, "doctor", "run", "--check", "check.settings.valid")
    assert done.returncode == code, done.stdout


def test_settings_that_cannot_be_read_are_a_report(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"Smtp": {"Port": "many"')
    done = doctor(tmp_path, {}, "--config", "settings.json", "doctor", "--json")
    assert done.returncode == 1
    checks = found(done)
    assert "is not JSON" in checks["check.settings.valid"]["details"][0]
    assert checks["check.system.disk"]["state"] != "skip"


def test_a_failure_that_was_asked_for_is_told_in_full(tmp_path: Path) -> None:
    port = unused_port()
    environ = {
        "Email__Smtp__Host": "127.0.0.1",
        "Email__Smtp__Port": str(port),
        "Email__Smtp__Password": "hush",
    }
    done = doctor(tmp_path, environ, "doctor", "run", "--check", "check.integration.smtp")
    assert done.returncode == 3
    for told in (
        "warn: The SMTP server refused the connection",
        f"127.0.0.1:{port} (from Email:Smtp:Host)",
        "What it checks",
        "Why it matters",
        "Common causes",
        "How to fix it, Docker Compose",
        "How to fix it, Bare metal, systemd",
        "How to fix it, Kubernetes, Helm",
        "How to verify",
        "Related: check.ports.listeners",
    ):
        assert told in done.stdout
    assert "hush" not in done.stdout + done.stderr


def test_the_database_of_the_settings_is_looked_at(
    tmp_path: Path, database_parameters: dict[str, str]
) -> None:
    done = doctor(
        tmp_path, settings(database_parameters), "doctor", "run", "--check", "check.database", "--json"
    )
    states = {name: check["state"] for name, check in found(done).items()}
    assert states.pop("check.database.embedded") == "skip"
    assert set(states.values()) == {"pass"}, done.stdout
    assert done.returncode == 0


def test_a_demo_that_was_never_started_is_left_alone(tmp_path: Path) -> None:
    done = doctor(
        tmp_path, {}, "--demo", "--data", "demo", "doctor", "run", "--json", "--check", "check.database"
    )
    assert "first start makes it" in found(done)["check.database.reachable"]["summary"]
    assert list(tmp_path.iterdir()) == []


def test_checks_are_listed(tmp_path: Path) -> None:
    listed = doctor(tmp_path, {"Smtp__Port": "many"}, "doctor", "list").stdout
    assert len(listed.splitlines()) == len(CHECKS) + 1
    (line,) = [line for line in listed.splitlines() if line.startswith("check.integration.smtp ")]
    assert line.split(maxsplit=5)[1:5] == ["warn", "connectivity,", "email,", "smtp"]
    shown = json.loads(doctor(tmp_path, {}, "doctor", "list", "--json").stdout)
    assert [check["id"] for check in shown] == [check.id for check in CHECKS]


def test_checks_are_explained(tmp_path: Path) -> None:
    told = doctor(tmp_path, {}, "doctor", "explain", "check.dns.spf").stdout
    assert told.startswith("check.dns.spf - SPF lets this host send")
    assert "v=spf1 mx ip4:192.0.2.25 -all" in told
    (shown,) = json.loads(doctor(tmp_path, {}, "doctor", "explain", "check.dns.spf", "--json").stdout)
    assert shown["plugin"] == "relaymail.doctor.dns"


@pytest.mark.parametrize("arguments", [["run", "--check", "check.nothing"], ["explain", "nothing"]])
def test_a_check_that_there_is_not(tmp_path: Path, arguments: list[str]) -> None:
    done = doctor(tmp_path, {}, "doctor", *arguments)
    assert done.returncode == 2
    assert "`relaymail doctor list` shows all" in done.stderr


def test_slow_checks_are_told_beside_the_report(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        environ = {"Api__BaseUrl": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        done = doctor(tmp_path, environ, "doctor", "run", "--check", "check.api.reachable", "--json")
    assert "2 s: waiting for check.api.reachable" in done.stderr
    assert found(done)["check.api.reachable"]["details"] == ["no answer within 8 s"]
