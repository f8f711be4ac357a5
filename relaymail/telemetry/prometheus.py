"""The numbers as Prometheus has them: its names, its base units, its text.

``smtp.message.processing.duration``, in milliseconds there, is
``relaymail_smtp_message_processing_duration_seconds`` here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from relaymail.telemetry.instruments import Buckets, Description, Kind, Reading

PREFIX = "relaymail_"
_NAMES = {"db.client.connection.count": "db.client.connections"}
"""What would be taken for a part of a histogram under its own name."""
_UNITS = {"s": ("seconds", 1.0), "ms": ("seconds", 0.001), "By": ("bytes", 1.0)}
"""What a unit of ours is called here, and how many of these it is."""


def name_of(description: Description) -> str:
    """The name of an instrument, as one finds it in Prometheus, without what a histogram adds to it."""
    name = PREFIX + _NAMES.get(description.name, description.name).replace(".", "_")
    unit = _UNITS.get(description.unit)
    if unit is not None and unit[0] not in name.split("_"):
        name = f"{name}_{unit[0]}"
    return name + "_total" if description.kind is Kind.COUNTER else name


def exposition(readings: Sequence[Reading], version: str, accept: str = "") -> tuple[bytes, str]:
    """The page for ``/metrics`` and its content type, in the format that ``accept`` asks for.

    Reads the process's numbers from ``/proc``, which takes a while with many open files: call it in a thread.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Page(readings, version)), content_type


class _Page(Collector):
    """One moment's numbers; nothing is registered anywhere."""

    def __init__(self, readings: Sequence[Reading], version: str) -> None:
        self._readings = readings
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield InfoMetricFamily(PREFIX + "build", "Version of relaymail", {"version": self._version})
        for reading in self._readings:
            if reading.points:
                yield _family(reading)
        yield from ProcessCollector(registry=None).collect()


def _family(reading: Reading) -> Metric:
    description = reading.description
    name, labels, meaning = name_of(description), description.labels, description.meaning
    factor = _UNITS.get(description.unit, ("", 1.0))[1]
    if description.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, meaning, labels=labels)
        for values, buckets in reading.points.items():
            if isinstance(buckets, Buckets):
                histogram.add_metric(
                    values, _cumulative(description, buckets, factor), sum_value=buckets.total * factor
                )
        return histogram
    kind = CounterMetricFamily if description.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(name, meaning, labels=labels)
    for values, number in reading.points.items():
        if not isinstance(number, Buckets):
            family.add_metric(values, number * factor)
    return family


def _cumulative(description: Description, buckets: Buckets, factor: float) -> list[tuple[str, float]]:
    bounds: Iterable[float] = (*(bound * factor for bound in description.bounds), math.inf)
    return [
        ("+Inf" if bound == math.inf else f"{bound:.12g}", count)
        for bound, count in zip(bounds, accumulate(buckets.counts), strict=True)
    ]
