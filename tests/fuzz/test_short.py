"""A short run of every check: all seeds, then what hypothesis thinks of."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.run import load, seeds
from tests.fuzz.strategies import inputs

NAMES = ("grammar", "framing", "content", "protocol")
EXAMPLES = {"grammar": 1500, "framing": 500, "content": 400, "protocol": 600}


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name: str) -> None:
    check = load(name)
    found = seeds(name)
    assert found
    for data in found.values():
        check(data)


@cache
def strategy(name: str) -> st.SearchStrategy[bytes]:
    return inputs(name)


@pytest.mark.parametrize("name", NAMES)
def test_whatever_comes(name: str) -> None:
    check = load(name)

    def run(data: bytes) -> None:
        check(data)

    bounded: Any = settings(
        max_examples=EXAMPLES[name], suppress_health_check=[HealthCheck.too_slow], deadline=None
    )(given(strategy(name))(run))
    bounded()
