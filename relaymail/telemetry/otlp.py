"""The numbers as OpenTelemetry has them, for its OTLP exporter. Needs the extra ``otel``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from relaymail.telemetry.instruments import Buckets, Description, Kind, Labels, Reading

SCOPE = "relaymail"


def metrics_data(readings: Iterable[Reading], resource: Resource, began: int, now: int) -> MetricsData:
    """``readings`` as one export.

    :param began: since when is counted, and ``now``, both in nanoseconds of Unix time.
    """
    metrics = [_metric(reading, began, now) for reading in readings if reading.points]
    scope = ScopeMetrics(InstrumentationScope(SCOPE), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(reading: Reading, began: int, now: int) -> Metric:
    description = reading.description
    data: Any
    if description.kind is Kind.HISTOGRAM:
        data = Histogram(_distributions(reading, began, now), AggregationTemporality.CUMULATIVE)
    else:
        points = [
            NumberDataPoint(_attributes(description, labels), began, now, value)
            for labels, value in reading.points.items()
            if not isinstance(value, Buckets)
        ]
        if description.kind is Kind.GAUGE:
            data = Gauge(points)
        else:
            data = Sum(points, AggregationTemporality.CUMULATIVE, description.kind is Kind.COUNTER)
    return Metric(description.name, description.meaning, description.unit, data)


def _distributions(reading: Reading, began: int, now: int) -> list[HistogramDataPoint]:
    unknown: Any = None  # Least and largest value: not kept, and optional in OTLP
    return [
        HistogramDataPoint(
            _attributes(reading.description, labels),
            began,
            now,
            sum(buckets.counts),
            buckets.total,
            buckets.counts,
            reading.description.bounds,
            unknown,
            unknown,
        )
        for labels, buckets in reading.points.items()
        if isinstance(buckets, Buckets)
    ]


def _attributes(description: Description, labels: Labels) -> dict[str, str]:
    return dict(zip(description.labels, labels, strict=True))
