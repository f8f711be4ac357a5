"""How many connections a destination gets: few at first, more while it takes mail, half when it does not.

A destination here is where mail goes in the end: a set of mail hosts, which many domains may share, or the
smarthost.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FIRST: Final = 2
"""Connections with which a destination begins."""
MOST: Final = 10
"""Connections it gets at most, unless something else is said of it."""
REMEMBERED: Final = 10_000
"""Destinations without a connection whose number is remembered."""


@dataclass(slots=True)
class _Standing:
    allowed: int
    open: int = 0


class Destinations:
    """Counts connections.

    :param most_in_all: connections to all destinations together.
    :param most: connections to one of them.
    """

    def __init__(self, most_in_all: int, *, first: int = FIRST, most: int = MOST) -> None:
        self._most_in_all = most_in_all
        self._first = first
        self._most = most
        self._open = 0
        self._known: OrderedDict[str, _Standing] = OrderedDict()
        self.overrides: Mapping[str, int] = {}
        """The most connections for some domains, in place of ``most``; more than ``most`` is allowed."""

    @property
    def free(self) -> int:
        """Connections that may be opened yet, whereto ever."""
        return self._most_in_all - self._open

    def most(self, domain: str) -> int:
        """Connections that mail for ``domain`` may have at most."""
        return min(self.overrides.get(domain, self._most), self._most_in_all)

    def allowed(self, key: str, domain: str) -> int:
        """Connections that the destination ``key`` may have now, for mail to ``domain``."""
        known = self._known.get(key)
        return min(known.allowed if known else self._first, self.most(domain))

    def count(self, key: str) -> int:
        """Connections that the destination has."""
        known = self._known.get(key)
        return known.open if known else 0

    def has_room(self, key: str, domain: str) -> bool:
        """Whether another connection may be opened there."""
        return self._open < self._most_in_all and self.count(key) < self.allowed(key, domain)

    def opened(self, key: str) -> None:
        """A connection is being opened."""
        self._open += 1
        self._standing(key).open += 1

    def closed(self, key: str) -> None:
        """It is no more."""
        self._open -= 1
        self._standing(key).open -= 1
        self._forget()

    def took_mail(self, key: str, domain: str) -> None:
        """A message was taken: one connection more may be tried."""
        standing = self._standing(key)
        standing.allowed = min(standing.allowed + 1, max(self.most(domain), standing.allowed))

    def pushed_back(self, key: str) -> None:
        """A connection could not be opened, or was ended with 421: only half as many."""
        standing = self._standing(key)
        standing.allowed = max(1, standing.allowed // 2)

    def _standing(self, key: str) -> _Standing:
        standing = self._known.get(key)
        if standing is None:
            standing = self._known[key] = _Standing(self._first)
        self._known.move_to_end(key)
        return standing

    def _forget(self) -> None:
        """Keep no more than :data:`REMEMBERED` beside those that have connections."""
        while len(self._known) > REMEMBERED + self._open:
            key = next(key for key, standing in self._known.items() if not standing.open)
            del self._known[key]
