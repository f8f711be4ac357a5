"""No message of the corpus costs more time or memory to be read than its size allows."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

from tests.corpus.cases import small
from tests.corpus.large import LARGE

MIB: Final = 1024 * 1024
SMALL_SECONDS: Final = 0.25
SMALL_MEMORY: Final = 4 * MIB
"""For a message of a few KiB: generous, and far below what a table of its growth would need."""
LARGE_SECONDS: Final = 2.5
"""The reader gives up after two."""
LARGE_MEMORY: Final = 64 * MIB

_PROGRAM: Final = (
    "import json, sys; from dataclasses import astuple; from tests.corpus.measure import measure;"
    " print(json.dumps([astuple(cost) for cost in measure(json.load(sys.stdin))]))"
)

Costs = dict[str, tuple[int, float, int]]


@pytest.fixture(scope="module")
def costs() -> Costs:
    """Octets, seconds of processor time and octets of memory of every message, measured elsewhere."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps([*small(), *LARGE]),
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: (octets, seconds, memory) for name, octets, seconds, memory in json.loads(ended.stdout)}


@pytest.mark.parametrize("name", small())
def test_a_small_message_costs_next_to_nothing(name: str, costs: Costs) -> None:
    octets, seconds, memory = costs[name]
    assert octets < 64 * 1024
    assert seconds < SMALL_SECONDS
    assert memory < SMALL_MEMORY


@pytest.mark.parametrize("name", LARGE)
def test_a_large_message_costs_no_more_than_its_size_allows(name: str, costs: Costs) -> None:
    octets, seconds, memory = costs[name]
    assert seconds < LARGE_SECONDS
    assert memory < LARGE_MEMORY + 3 * octets
