"""What the documentation says about files, commands and settings that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from relaymail.cli import cli
from relaymail.store.schema.public import INDEXES
from tests.packaging.cli_reference import commands_of, reference

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, list[str]]]:
    """Each use of the command ``relaymail`` in a page: the page, and the words behind the command."""
    found = []
    for page in PAGES:
        text = page.read_text()
        pieces = [line for block in FENCE.findall(text) for line in block.splitlines()]
        pieces += re.findall(r"`(relaymail [^`]+)`", text)
        for piece in pieces:
            for rest in re.findall(r"(?:^|[\s/(])relaymail ((?:--)?[a-z][^|)\"]*)", piece):
                found.append((str(page.relative_to(ROOT)), rest.split("#")[0].split()))
    return found


def test_every_link_leads_somewhere() -> None:
    broken = [
        (page.name, link)
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_every_page_is_reached_from_the_map() -> None:
    linked = {
        (page.parent / link).resolve()
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    }
    assert [page.name for page in PAGES if page.name != "README.md" and page.resolve() not in linked] == []


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    assert (ROOT / "docs/reference/cli.md").read_text() == reference()


def test_every_command_that_is_told_exists() -> None:
    groups = {name for name, command in commands_of(cli).items() if isinstance(command, click.Group)}
    checked = 0
    for page, words in commands():
        while words and words[0].startswith("--"):
            words = words[1 if words[0] in {"--demo", "--version"} else 2 :]
        if not words or words[0] not in groups:
            continue
        command: click.Command = cli
        while isinstance(command, click.Group) and words and words[0].isalpha() and words[0].islower():
            assert words[0] in commands_of(command), f"{page}: relaymail {words}"
            command = commands_of(command)[words.pop(0)]
        known = {name for param in command.params for name in param.opts} | {"--help"}
        given = {word for word in words if word.startswith("--")}
        assert given <= known, f"{page}: {given - known}"
        checked += 1
    assert checked > 20


def test_every_file_that_the_architecture_names_exists() -> None:
    missing = [
        name
        for page in ("architecture.md", "decisions.md", "rfc.md")
        for name in re.findall(r"`([a-z_]+/[a-z_0-9/]*\.(?:py|sql))`", (ROOT / "docs" / page).read_text())
        if not (ROOT / "relaymail" / name).exists() and not (ROOT / name).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_readme_marks_its_commands_where_ci_finds_them(name: str) -> None:
    text = (ROOT / "README.md").read_text()
    (command,) = re.findall(rf"<!-- command: {name} -->\n```sh\n(.+)\n```", text)
    assert shlex.split(command)[:3] == ["python3", "-m", "venv"]
    assert ("twistd -n relaymail --demo" if name == "demo" else "pytest") in command


def test_the_ci_script_is_sound_and_may_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "readme_command test" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_indexes_that_the_guide_has_made_by_hand_are_those_the_host_makes() -> None:
    page = (ROOT / "docs/how-to/shared-database.md").read_text()
    told = re.findall(r'^CREATE INDEX (\w+) ON "(\w+)" \((.+)\);$', page, re.MULTILINE)
    assert told == [(index.name, index.table, index.expression) for index in INDEXES]
