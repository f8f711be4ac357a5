"""The command as a program of its own, against a database of the test's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relaymail.settings import ConnectionString


@dataclass
class Command:
    """Runs ``relaymail`` with settings from the environment alone."""

    environment: Mapping[str, str]
    folder: Path

    def __call__(
        self, *arguments: str, code: int = 0, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run and check the exit code; nothing that is foreseen may print a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "relaymail.cli", *arguments],
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", **(self.environment if environment is None else environment)},
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert done.returncode == code, done.stderr.decode()
        return done

    def text(self, *arguments: str, code: int = 0) -> str:
        """What it printed."""
        return self(*arguments, code=code).stdout.decode()

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What it printed with ``--json``."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def error(self, *arguments: str, code: int = 1, environment: Mapping[str, str] | None = None) -> str:
        """What it printed on standard error when it failed, having printed nothing else."""
        done = self(*arguments, code=code, environment=environment)
        assert done.stdout == b""
        return done.stderr.decode()


def settings(parameters: Mapping[str, str]) -> dict[str, str]:
    """The environment that names a database."""
    return {"ConnectionStrings__DefaultConnection": ConnectionString(parameters).url()}


@pytest.fixture
def relaymail(database_parameters: dict[str, str], tmp_path: Path) -> Command:
    """The command, on the test's own migrated database."""
    return Command(settings(database_parameters), tmp_path)


@pytest.fixture
def unprepared(empty_database_parameters: dict[str, str], tmp_path: Path) -> Command:
    """The command, on a database that has nothing in it."""
    return Command(settings(empty_database_parameters), tmp_path)
