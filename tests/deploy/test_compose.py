"""The compose file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import CONNECTION, DEPLOY, loaded

FILE = DEPLOY / "compose.yaml"
EXAMPLE = DEPLOY / "relaymail.env.example"


def services() -> dict[str, Any]:
    """The services by name."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def settings_of(text: str) -> dict[str, str]:
    """The variables of an environment file."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_the_compose_specification_allows_it(tmp_path: Path) -> None:
    pytest.importorskip("check_jsonschema", reason="needs check-jsonschema")

    def check(file: Path) -> int:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
        return subprocess.run([*command, str(file)], capture_output=True).returncode

    assert check(FILE) == 0
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(FILE.read_text().replace("stop_grace_period", "stop_grace"))
    assert check(wrong) != 0


def test_health_is_looked_at_as_every_host_of_the_system_is() -> None:
    for name, port in (("relaymail", 8081), ("api", 8080)):
        assert services()[name]["healthcheck"] == {
            "test": ["CMD-SHELL", f"curl -sf http://localhost:{port}/healthz || exit 1"],
            "interval": "30s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "10s",
        }


def test_nobody_starts_before_the_database_is_well() -> None:
    assert "pg_isready" in services()["db"]["healthcheck"]["test"][1]
    for name in ("relaymail", "api"):
        assert services()[name]["depends_on"] == {"db": {"condition": "service_healthy"}}


def test_the_host_may_do_little_and_has_time_to_end() -> None:
    host = services()["relaymail"]
    assert host["stop_grace_period"] == "90s"
    assert host["read_only"] is True
    assert host["cap_drop"] == ["ALL"]
    assert host["security_opt"] == ["no-new-privileges:true"]
    assert host["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": "0"}
    assert "privileged" not in host


def test_the_ports_are_open_and_health_is_not() -> None:
    assert services()["relaymail"]["ports"] == ["25:25", "465:465", "587:587", "127.0.0.1:8081:8081"]
    for name in ("db", "api"):
        assert "ports" not in services()[name]


def test_no_secret_is_in_the_files() -> None:
    for file in (FILE, EXAMPLE):
        for line in file.read_text().splitlines():
            if line.startswith("#"):
                continue
            assert not re.search(r"(?i)(password|api_?key|secret)\w*\s*[=:]\s*['\"]?[^\s'\"/\[]", line), line
    assert services()["relaymail"]["env_file"] == ["relaymail.env"]
    # A variable here would win over one that is added to relaymail.env
    assert "environment" not in services()["relaymail"]


def test_the_host_starts_with_the_example_once_the_blanks_are_filled_in() -> None:
    environment = settings_of(EXAMPLE.read_text())
    assert environment["ConnectionStrings__DefaultConnection"] == CONNECTION.removesuffix("secret")
    settings = loaded({**environment, "ConnectionStrings__DefaultConnection": CONNECTION})
    assert settings.smtp.mx.hosted_domains
    mounts = dict(volume.split(":")[:2] for volume in services()["relaymail"]["volumes"])
    assert str(settings.smtp.certificate_path).startswith(f"{mounts['./tls']}/")
    assert settings.api.base_url.rstrip("/") == "http://api:8080"
