"""``relaymail config show``, help and version."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from relaymail.cli import COMMANDS
from tests.cli.conftest import Command


def test_every_setting_is_shown_with_its_source_and_secrets_hidden(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"Smtp": {"Port": 2500}}))
    command = Command(
        {
            "ConnectionStrings__DefaultConnection": "Host=db;Username=u;Password=hush-1",
            "INTERNAL__APIKEY": "hush-2",
        },
        tmp_path,
    )
    shown = {e["key"]: e for e in command.json("--config", str(file), "config", "show")}
    assert shown["Smtp:Port"]["value"] == 2500
    assert str(file) in shown["Smtp:Port"]["source"]
    assert shown["Smtp:SecurePort"] == {"key": "Smtp:SecurePort", "value": 465, "source": "default"}
    assert "INTERNAL__APIKEY" in shown["Internal:ApiKey"]["source"]
    text = command.text("--config", str(file), "config", "show")
    assert "Smtp:Port" in text
    assert "hush" not in text + json.dumps(shown)


def test_the_demo_has_its_own_defaults(tmp_path: Path) -> None:
    shown = {e["key"]: e for e in Command({}, tmp_path).json("--demo", "--data", "here", "config", "show")}
    assert shown["Smtp:Port"] == {"key": "Smtp:Port", "value": 2587, "source": "demo"}
    assert shown["Data:Directory"]["value"] == "here"


def test_warnings_go_to_standard_error(tmp_path: Path) -> None:
    done = Command({"Smtp__CertificatePassword": "hush"}, tmp_path)("config", "show", "--json")
    json.loads(done.stdout)
    assert b"Smtp:CertificatePassword" in done.stderr


def test_a_settings_file_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    message = Command({}, tmp_path).error("--config", "nosuch.json", "config", "show", code=78)
    assert "nosuch.json" in message


def test_help_needs_no_settings_and_tells_the_exit_codes(tmp_path: Path) -> None:
    command = Command({"Smtp__Port": "wrong"}, tmp_path)
    shown = command.text("--help")
    for expected in ("relaymail key create", "message", "69", "78"):
        assert expected in shown
    for group in ("user", "key", "message", "config", "db", "outbox"):
        assert "--help" in command.text(group, "--help")
    assert "ADDRESS" in command.text("user", "grant", "add", "--help")


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    assert Command({}, tmp_path).text("--version") == f"relaymail {version('relaymail')}\n"


def test_wrong_usage_is_told_apart(tmp_path: Path) -> None:
    Command({}, tmp_path).error("nosuch", code=2)


def test_help_and_version_import_no_more_than_they_need(tmp_path: Path) -> None:
    code = (
        "import sys; from relaymail.cli import cli; cli(sys.argv[1:], standalone_mode=False);"
        "sys.exit(any(name.partition('.')[0] in ('twisted', 'psycopg2', 'msgspec') for name in sys.modules))"
    )
    for option in ("--help", "--version"):
        subprocess.run([sys.executable, "-c", code, option], cwd=tmp_path, capture_output=True, check=True)


def test_the_list_of_commands_says_what_each_says_of_itself(tmp_path: Path) -> None:
    shown = " ".join(Command({}, tmp_path).text("--help").split())
    for name, summary in COMMANDS.items():
        assert f"{name} {summary}" in shown
        help_text = " ".join(Command({}, tmp_path).text(name, "--help").split())
        assert summary.removesuffix(".") in help_text
