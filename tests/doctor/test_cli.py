"""``relaymail doctor`` as a program: reports, exit codes, what it does without settings and database."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relaymail.cli import cli
from relaymail.doctor import CHECKS
from tests.cli.conftest import settings
from tests.support.ports import free_port

QUIET = {
    "Smtp__Port": "0",
    "Smtp__SecurePort": "0",
    "HealthCheck__Url": "http://localhost:0",
    "Dns__Servers__0": "127.0.0.1:9",
    "Api__BaseUrl": "http://127.0.0.1:9",
}
"""Nothing of this machine is asked."""


def doctor(folder: Path, environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "relaymail.cli", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **QUIET, **environ},
        capture_output=True,
        text=True,
        timeout=300,
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


def test_warnings_alone_have_an_exit_code_of_their_own(tmp_path: Path) -> None:
    environ = {"Data__EmbeddedPostgres": "true", "Smtp__Port": str(free_port()), "Smtp__Colour": "blue"}
    done = doctor(tmp_path, environ, "doctor", "run", "--check", "check.settings.valid")
    assert done.returncode == 3, done.stdout


def test_settings_that_cannot_be_read_are_a_report(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"Smtp": {"Port": "many"')
    done = doctor(tmp_path, {}, "--config", "settings.json", "doctor", "--json")
    assert done.returncode == 1
    checks = found(done)
    assert "is not JSON" in checks["check.settings.valid"]["details"][0]
    assert checks["check.system.disk"]["state"] != "skip"


def test_a_failure_that_was_asked_for_is_told_in_full(tmp_path: Path) -> None:
    port = free_port()
    environ = {
        "Email__Smtp__Host": "127.0.0.1",
        "Email__Smtp__Port": str(port),
        "Email__Smtp__Password": "hush",
    }
    done = doctor(tmp_path, environ, "doctor", "run", "--check", "check.integration.smtp")
    assert done.returncode == 3
    for part in (
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
        assert part in done.stdout
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


def told(*arguments: str, code: int = 0) -> str:
    """What a command prints that looks at nothing."""
    done = CliRunner().invoke(cli, ["doctor", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_checks_are_listed() -> None:
    listed = told("list")
    assert len(listed.splitlines()) == len(CHECKS) + 1
    (line,) = [line for line in listed.splitlines() if line.startswith("check.integration.smtp ")]
    assert line.split(maxsplit=5)[1:5] == ["warn", "connectivity,", "email,", "smtp"]
    assert [check["id"] for check in json.loads(told("list", "--json"))] == [check.id for check in CHECKS]


def test_checks_are_explained() -> None:
    page = told("explain", "check.dns.spf")
    assert page.startswith("check.dns.spf - SPF lets this host send")
    assert "v=spf1 mx ip4:192.0.2.25 -all" in page
    (shown,) = json.loads(told("explain", "check.dns.spf", "--json"))
    assert shown["plugin"] == "relaymail.doctor.dns"


@pytest.mark.parametrize("arguments", [["run", "--check", "check.nothing"], ["explain", "nothing"]])
def test_a_check_that_there_is_not(arguments: list[str]) -> None:
    assert "`relaymail doctor list` shows all" in told(*arguments, code=2)


def test_help_is_help_and_no_run() -> None:
    assert "Exit codes of `run`" in told("--help")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)
        yield listening.getsockname()[1]


def test_everything_hanging_at_once_is_told_in_time_and_what_is_waited_for_meanwhile(
    tmp_path: Path, silent: int
) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as dns:
        dns.bind(("127.0.0.1", 0))
        environ = {
            "ConnectionStrings__DefaultConnection": f"Host=127.0.0.1;Port={silent};Database=d;Username=u",
            "Dns__Servers__0": f"127.0.0.1:{dns.getsockname()[1]}",
            "Api__BaseUrl": f"http://127.0.0.1:{silent}",
            "HealthCheck__Url": f"http://127.0.0.1:{silent}",
            "Doctor__OutboundTarget": f"127.0.0.1:{silent}",
            "Smtp__ServerName": "mail.example.com",
            "Smtp__Mx__Enabled": "true",
            "Smtp__Mx__Port": "0",
            "Smtp__Mx__HostedDomains__0": "example.com",
        }
        done = doctor(tmp_path, environ, "doctor", "--json")
    checks = found(done)
    assert len(checks) == len(CHECKS)
    for name in ("database.reachable", "dns.resolver", "api.reachable", "ports.listeners", "outbound.port25"):
        assert checks[f"check.{name}"]["state"] == "fail", checks[f"check.{name}"]
    for name in ("dns.addresses", "dns.mx", "dns.dmarc", "mail.recipients", "queue.due"):
        assert checks[f"check.{name}"]["state"] == "skip", checks[f"check.{name}"]
    assert checks["check.api.reachable"]["details"] == ["no answer within 8 s"]
    assert "2 s: waiting for" in done.stderr
