"""The alert rules."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest
import yaml

from relaymail.cli import cli
from relaymail.doctor import CHECKS
from relaymail.health.monitor import CHECK_NAMES
from tests.deploy.manifests import DEPLOY
from tests.deploy.metrics import known, named
from tests.interop.programs import program, succeed
from tests.packaging.cli_reference import commands_of

RULES = "prometheus-rules.yaml"
TESTS = "prometheus-rules-test.yaml"
GUIDE = DEPLOY.parent / "how-to" / "alerting.md"


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    groups = yaml.safe_load((DEPLOY / RULES).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def everything_said() -> str:
    """The texts of all alerts."""
    return " ".join(" ".join(rule["annotations"].values()) for rule in rules())


def test_promtool_finds_nothing_wrong() -> None:
    succeed(program("promtool", "prometheus"), "check", "rules", str(DEPLOY / RULES))


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    succeed(program("promtool", "prometheus"), "test", "rules", str(DEPLOY / TESTS))


def test_every_alert_is_seen_to_fire() -> None:
    expected = re.findall(r'alertname="(\w+)"[^}]*}\', value: 1', (DEPLOY / TESTS).read_text())
    assert {rule["alert"] for rule in rules()} <= set(expected)


def test_the_four_that_were_asked_for_are_there() -> None:
    found = {rule["expr"]: rule for rule in rules()}
    for check in ("smtp", "dns-mx", "database"):
        assert (
            found[f'relaymail_health_check_status{{check="{check}"}} == 2']["labels"]["severity"]
            == "critical"
        )
    assert 'relaymail_health_check_status{check="certificate"} == 1' in found


def test_every_metric_and_every_check_that_is_asked_for_exists() -> None:
    for rule in rules():
        assert named(rule["expr"]) <= known(), rule["alert"]
        for operator, value in re.findall(r'check(!?=~?)"([^"]+)"', rule["expr"]):
            names = value.split("|") if operator.endswith("~") else [value]
            assert set(names) <= set(CHECK_NAMES), rule["alert"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_tells_what_it_is_and_where_to_go_on(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Relaymail")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    # A pager shows one line
    assert len(rule["annotations"]["summary"]) < 100
    assert rule["annotations"]["runbook"] == f"docs/how-to/alerting.md#{rule['alert'].lower()}"
    assert f"\n### {rule['alert']}\n" in GUIDE.read_text()


def test_the_guide_has_no_alert_that_does_not_exist() -> None:
    headings = re.findall(r"^### (Relaymail\w+)$", GUIDE.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]


def test_every_doctor_check_and_command_that_is_named_exists() -> None:
    ids = set(re.findall(r"check\.[a-z0-9-]+\.[a-z0-9-]+", everything_said()))
    assert len(ids) > 8
    assert ids <= {check.id for check in CHECKS}
    commands = re.findall(r"relaymail (doctor|limits|outbox) (\w+)", everything_said())
    assert {group for group, _ in commands} == {"doctor", "limits", "outbox"}
    for group, command in commands:
        found = commands_of(cli)[group]
        assert isinstance(found, click.Group)
        assert command in commands_of(found)
