"""An API to notify, rows to notify it of, and notifiers that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from relaymail.notify import Notifier
from relaymail.store.database import Database
from tests.conftest import reactor, run_on_reactor
from tests.notify.api import Api


@pytest.fixture
def api() -> Iterator[Api]:
    """An API that takes everything."""
    made = Api()
    yield made
    run_on_reactor(made.stop())


@pytest.fixture
def notifiers(database: Database, api: Api) -> Iterator[Callable[..., Notifier]]:
    """Makes notifiers for ``api`` that end with the test; keywords are :class:`Notifier`'s."""
    made: list[Notifier] = []

    def make(**options: Any) -> Notifier:
        options = {"database": database, "base_url": api.url, "api_key": None, "reactor": reactor, **options}
        notifier = Notifier(**options)
        made.append(notifier)
        return notifier

    yield make
    for notifier in made:
        run_on_reactor(notifier.stop(0))
