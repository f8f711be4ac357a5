"""The long run of one check: ``python -m tests.fuzz.NAME [-max_total_time=SECONDS] [CORPUS …]``.

With atheris (coverage-guided, ``pip install atheris``) all of libFuzzer's options do. Without it hypothesis
makes the input out of the seeds and the fragments, and of the options only ``-max_total_time`` counts.
"""

from __future__ import annotations

import importlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.logger import LogPublisher, globalLogBeginner

SEEDS: Final = Path(__file__).parent / "seeds"
DEFAULT_SECONDS: Final = 60.0


def main(name: str) -> None:
    """Run the check ``name`` until the time is over or it fails."""
    # What goes wrong on purpose is logged, and nobody could read it
    nowhere: Any = LogPublisher()
    globalLogBeginner.beginLoggingTo([nowhere], redirectStandardIO=False)
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: random input, not guided by coverage", file=sys.stderr)
        _unguided(name)
        return
    with atheris.instrument_imports(include=["relaymail"], enable_loader_override=False):
        check = load(name)
    arguments = sys.argv if len(sys.argv) > 1 else [*sys.argv, f"-max_total_time={DEFAULT_SECONDS:g}"]
    # What it finds new goes into the first folder: not into the seeds, unless somebody says so
    if all(argument.startswith("-") for argument in arguments[1:]):
        arguments = [*arguments, str(SEEDS / name)]
    atheris.Setup(arguments, check)
    atheris.Fuzz()


def load(name: str) -> Callable[[bytes], None]:
    """The check of that name."""
    check: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.checks_{name}").check
    return check


def seeds(name: str) -> dict[str, bytes]:
    """The seeds of a check, by file name."""
    return {path.name: path.read_bytes() for path in sorted((SEEDS / name).iterdir())}


def _unguided(name: str) -> None:
    from hypothesis import HealthCheck, given, settings  # a check does not need it where atheris is
    from hypothesis import seed as seeded

    from tests.fuzz.strategies import inputs

    check = load(name)
    seconds = DEFAULT_SECONDS
    for argument in sys.argv[1:]:
        if argument.startswith("-max_total_time="):
            seconds = float(argument.partition("=")[2])
    began = time.monotonic()
    runs = 0

    def counted(data: bytes) -> None:
        nonlocal runs
        runs += 1
        check(data)

    while time.monotonic() - began < seconds:
        attempt = given(inputs(name))(counted)
        attempt = settings(
            max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )(attempt)
        seeded(random.getrandbits(32))(attempt)()
    print(f"{name}: {runs} runs in {time.monotonic() - began:.0f} s, nothing found", file=sys.stderr)
