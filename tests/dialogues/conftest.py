"""Hosts for the scripts, by their settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.dialogues.hosts import Hosts
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def hosts(postgres: PostgresServer, migrated_template: str) -> Iterator[Hosts]:
    """Starts them as they are needed."""
    with TemporaryDirectory(prefix="relaymail-dialogues-") as folder:
        hosts = Hosts(Path(folder), postgres, migrated_template)
        try:
            yield hosts
        finally:
            hosts.remove()
