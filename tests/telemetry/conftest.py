"""A collector that ends with the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import run_on_reactor
from tests.telemetry.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    collector = Collector()
    yield collector
    run_on_reactor(collector.stop())
