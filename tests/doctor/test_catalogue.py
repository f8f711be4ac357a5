"""What is told of the checks: ids, pages, commands that can be pasted, the reference page."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from relaymail.doctor import CHECKS, Check, Severity, chosen
from relaymail.doctor.catalogue import BY_ID, UnknownCheck
from relaymail.doctor.page import KINDS
from relaymail.doctor.reference import reference
from relaymail.doctor.report import verify
from relaymail.settings.schema import tree

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "doctor.md"
KEYS = {leaf.path.lower() for leaf in tree().leaves()}
CLIENT_KEYS = {"smtp:host"}
"""Keys of a client's settings, in remedies of its check."""


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text() == reference(), (
        "run: python -m relaymail.doctor.reference > docs/reference/doctor.md"
    )


def test_ids_are_unique_and_say_the_area() -> None:
    assert len(BY_ID) == len(CHECKS)
    for check in CHECKS:
        assert re.fullmatch(r"check\.[a-z]+\.[a-z0-9-]+", check.id)
        assert check.plugin == f"relaymail.doctor.{check.id.split('.')[1]}"


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.id)
def test_every_page_is_complete(check: Check) -> None:
    page = check.page
    assert check.title
    assert check.tags
    assert page.what.endswith(".")
    assert page.why.endswith(".")
    assert page.causes
    assert page.related
    assert set(page.related) <= set(BY_ID) - {check.id}
    assert f"relaymail doctor run --check {check.id}" in verify(check)
    for kind in KINDS:
        assert page.fix.of(kind).strip()


@pytest.mark.parametrize("kind", KINDS)
def test_commands_can_be_pasted_into_a_shell(kind: str) -> None:
    dns_records = re.compile(r"^\S+\. 3600 IN .*$", re.MULTILINE)
    for check in CHECKS:
        script = dns_records.sub("", "\n".join((check.page.fix.of(kind), verify(check))))
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, ""), check.id


def test_the_settings_that_remedies_give_exist() -> None:
    given = {
        re.sub(r":\d+$", "", name.replace("__", ":").lower())
        for check in CHECKS
        for kind in KINDS
        for name in re.findall(r"\b([A-Z]\w+__\w+)[=:]", check.page.fix.of(kind))
    }
    assert len(given) > 8
    assert given - KEYS - CLIENT_KEYS == set()


def test_no_secret_gets_into_the_definition_of_a_deployment() -> None:
    for check in CHECKS:
        for line in check.page.fix.kubernetes.splitlines():
            assert not re.search(r"set env .*(Password|ApiKey)", line), check.id


def test_a_check_or_an_area_can_be_chosen() -> None:
    assert [check.id for check in chosen(["check.api.key"])] == ["check.api.key"]
    assert {check.area for check in chosen(["check.tls", "check.dns.spf"])} == {"tls", "dns"}
    assert len(chosen(["check.tls"])) == 5
    assert chosen([]) == list(CHECKS)
    for wrong in ("check.tl", "nothing", "check.tls.nothing", ""):
        with pytest.raises(UnknownCheck):
            chosen([wrong])


def test_the_check_of_a_clients_server_is_the_one_that_others_know() -> None:
    check = BY_ID["check.integration.smtp"]
    assert check.plugin == "relaymail.doctor.integration"
    assert check.severity is Severity.WARN
    assert check.tags == ("connectivity", "email", "smtp")
    assert "helm" in check.page.fix.kubernetes
    assert "smtp.host" in check.page.fix.kubernetes
