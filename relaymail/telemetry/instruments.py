"""What a metric is made of: plain numbers, added to where something happens, read by whoever collects.

Counting must cost next to nothing, since it happens many times for each message: an addition in a dict, with
no lock and no library. All of it is used on the reactor's thread only. How numbers leave the process is
decided elsewhere (:mod:`relaymail.telemetry.otlp`, :mod:`relaymail.telemetry.prometheus`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

MOST_SERIES: Final = 200
"""Different sets of label values that one instrument keeps; what comes after that is counted as ``other``.
None of ours comes near it: labels are words of the program, never of a client."""
OTHER: Final = "other"

Labels = tuple[str, ...]
"""The values of an instrument's labels, in their order."""


class Kind(Enum):
    """What a number does."""

    COUNTER = "counter"
    """It only grows."""
    LEVEL = "level"
    """It is added to and taken from; over several processes the sum means something."""
    GAUGE = "gauge"
    """It is set."""
    HISTOGRAM = "histogram"
    """Values are sorted into buckets."""


@dataclass(frozen=True, slots=True)
class Description:
    """What an instrument is.

    ``name`` is dotted, as in OpenTelemetry; ``unit`` is UCUM's, with what is counted in braces; ``labels``
    are the names of what its numbers are told apart by.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, included in them; one more bucket takes what is above."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """What a histogram has seen of one set of labels."""

    counts: tuple[int, ...]
    """For each bound, and for what is above the last one."""
    total: float
    """The sum of the values."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The numbers of one instrument at one moment."""

    description: Description
    points: Mapping[Labels, float | Buckets]


class Counter:
    """A :attr:`Kind.COUNTER` or :attr:`Kind.LEVEL`."""

    __slots__ = ("_values", "description")

    def __init__(
        self, name: str, unit: str, meaning: str, labels: tuple[str, ...] = (), kind: Kind = Kind.COUNTER
    ) -> None:
        self.description = Description(name, kind, unit, meaning, labels)
        # What has no labels is there from the start: a counter that has not counted is 0
        self._values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, amount: float = 1, labels: Labels = ()) -> None:
        """Add ``amount``."""
        try:
            self._values[labels] += amount
        except KeyError:
            labels = _bounded(self._values, labels)
            self._values[labels] = self._values.get(labels, 0) + amount

    def total(self) -> float:
        """The sum over all labels."""
        return sum(self._values.values())

    def read(self) -> Reading:
        """The numbers now."""
        return Reading(self.description, dict(self._values))


class Gauge:
    """A :attr:`Kind.GAUGE` that is set."""

    __slots__ = ("_values", "description")

    def __init__(self, name: str, unit: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        self.description = Description(name, Kind.GAUGE, unit, meaning, labels)
        self._values: dict[Labels, float] = {}

    def set(self, value: float, labels: Labels = ()) -> None:
        """It is ``value`` from now on."""
        self._values[labels if labels in self._values else _bounded(self._values, labels)] = value

    def get(self, labels: Labels = ()) -> float | None:
        """What was set last; ``None``: nothing yet."""
        return self._values.get(labels)

    def read(self) -> Reading:
        """The numbers now."""
        return Reading(self.description, dict(self._values))


class Observed:
    """A :attr:`Kind.GAUGE` that is looked at when somebody collects; without a ``look`` it has no numbers."""

    __slots__ = ("description", "look")

    def __init__(self, name: str, unit: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        self.description = Description(name, Kind.GAUGE, unit, meaning, labels)
        self.look: Callable[[], Iterable[tuple[Labels, float]]] | None = None
        """Returns the numbers; must be quick and must not raise."""

    def read(self) -> Reading:
        """The numbers now."""
        return Reading(self.description, {} if self.look is None else dict(self.look()))


class Histogram:
    """A :attr:`Kind.HISTOGRAM`."""

    __slots__ = ("_seen", "bounds", "description")

    def __init__(
        self, name: str, unit: str, meaning: str, bounds: Sequence[float], labels: tuple[str, ...] = ()
    ) -> None:
        self.bounds = tuple(bounds)
        self.description = Description(name, Kind.HISTOGRAM, unit, meaning, labels, self.bounds)
        self._seen: dict[Labels, _Seen] = {}

    def record(self, value: float, labels: Labels = ()) -> None:
        """Count ``value``."""
        seen = self._seen.get(labels)
        if seen is None:
            labels = _bounded(self._seen, labels)
            seen = self._seen.setdefault(labels, _Seen(len(self.bounds) + 1))
        seen.counts[bisect_left(self.bounds, value)] += 1
        seen.total += value

    def read(self) -> Reading:
        """The numbers now."""
        points = {labels: Buckets(tuple(seen.counts), seen.total) for labels, seen in self._seen.items()}
        return Reading(self.description, points)


class _Seen:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


Instrument = Counter | Gauge | Observed | Histogram


def _bounded(known: Mapping[Labels, object], labels: Labels) -> Labels:
    """``labels``, or :data:`OTHER` for each of them where there are too many already."""
    return labels if len(known) < MOST_SERIES else (OTHER,) * len(labels)
