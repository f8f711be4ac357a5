"""A situation for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaymail.store.database import Database
from tests.delivery.bounces.situation import Situation


@pytest.fixture
def situation(database: Database, tmp_path: Path) -> Situation:
    return Situation(database, tmp_path)
