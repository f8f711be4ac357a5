"""Finding programs that others have written, and running them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import NamedTuple

import pytest

LIMIT = 180.0
"""Seconds that any one program may take."""


class Done(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All it printed."""
        return self.out + self.err


def program(name: str, package: str | None = None, variable: str | None = None) -> str:
    """The path of a program; where it is missing the test is skipped and says which package has it.

    :param package: Debian's package, if it has another name than the program.
    :param variable: an environment variable that names the program where it is not on the ``PATH``.
    """
    found = (os.environ.get(variable) if variable else None) or shutil.which(name)
    if found is None:
        elsewhere = f", or name it in {variable}" if variable else ""
        pytest.skip(f"{name} is not installed: apt-get install {package or name}{elsewhere}")
    return found


def needs(reason: str, *command: str) -> None:
    """Skip the test for ``reason`` unless ``command`` succeeds."""
    if subprocess.run(command, capture_output=True, check=False, timeout=LIMIT).returncode:
        pytest.skip(reason)


def run(*command: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Done:
    """Run a program to its end, with ``environment`` on top of ours."""
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def succeed(*command: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Done:
    """Run a program that must end with 0."""
    done = run(*command, stdin=stdin, environment=environment)
    assert done.code == 0, done.text
    return done
