"""What the worker of the queue looks up once in a while: PostgreSQL's time, and what operators have set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from relaymail.delivery.destinations import Destinations
from relaymail.store import outgoing
from relaymail.store.database import Database
from relaymail.store.outgoing import DestinationSettings


class Clock:
    """PostgreSQL's time, by a monotonic clock and what it was ahead of that when last asked."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._ahead: float | None = None

    @property
    def known(self) -> bool:
        """Whether it was ever asked."""
        return self._ahead is not None

    async def ask(self, database: Database) -> None:
        """Ask what time it is. Raises ``DatabaseError``."""
        self._ahead = await outgoing.now(database) - self._seconds()

    def age(self, moment: datetime) -> float:
        """Seconds since a moment of PostgreSQL's."""
        assert self._ahead is not None
        return self._seconds() + self._ahead - moment.timestamp()


class DestinationsSet:
    """What operators have set for destinations, looked at once in a while."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self.current: Mapping[str, DestinationSettings] = {}

    async def read(self, database: Database) -> None:
        """Look again. Raises ``DatabaseError``."""
        self.current = await outgoing.settings(database)
        self._destinations.overrides = {
            name: one.max_connections for name, one in self.current.items() if one.max_connections is not None
        }
