"""What is counted, and that it reaches a collector."""

from __future__ import annotations

import gzip
import sys
import time
import timeit
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from relaymail.telemetry import Metrics, Telemetry, TelemetryError, configure
from relaymail.telemetry.export import metrics_url
from tests.conftest import reactor, run_on_reactor


class Collector(Resource):
    """An OTLP collector over HTTP."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        self.paths: list[bytes] = []
        self.exports: list[ExportMetricsServiceRequest] = []
        site = Site(self)
        self.port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"

    def render_POST(self, request: Request) -> bytes | int:
        self.paths.append(request.path)
        content: Any = request.content
        body = content.read()
        if request.getHeader("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.exports.append(ExportMetricsServiceRequest.FromString(body))
        if self.silent:
            return NOT_DONE_YET
        return bytes(ExportMetricsServiceResponse().SerializeToString())

    def points(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], Any]:
        """The data points of the last export by name and attributes."""
        [resource] = self.exports[-1].resource_metrics
        [scope] = resource.scope_metrics
        found = {}
        for metric in scope.metrics:
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                attributes = tuple(
                    (a.key, a.value.string_value or str(a.value.int_value)) for a in point.attributes
                )
                found[metric.name, attributes] = point
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    collector = Collector()
    yield collector
    run_on_reactor(as_coroutine(collector.port.stopListening()))


async def as_coroutine(waiting: Deferred[None] | None) -> None:
    if waiting is not None:
        await waiting


def use_everything(metrics: Metrics) -> None:
    metrics.message_received("mx", 4096)
    metrics.message_received("mx", 1000)
    metrics.message_processed("mx", 0.25)
    metrics.auth_attempted("submission")
    metrics.auth_failed("submission")
    metrics.connection_opened("mx")
    metrics.connection_opened("mx")
    metrics.connection_closed("mx")
    metrics.replied(250)
    metrics.refused("relay-denied")
    metrics.unexpected_error()
    metrics.notified("sent")
    metrics.check_finished("database", 2, 0.0085)


async def test_every_instrument_reaches_the_collector(collector: Collector) -> None:
    telemetry = configure(collector.url)
    use_everything(telemetry.metrics)
    await telemetry.stop(reactor)
    assert collector.paths == [b"/v1/metrics"]
    points = collector.points()
    counted = {key: point.as_int for key, point in points.items() if hasattr(point, "as_int")}
    mx, submission = (("listener", "mx"),), (("listener", "submission"),)
    assert counted == {
        ("smtp.messages.received", mx): 2,
        ("smtp.bytes.received", mx): 5096,
        ("smtp.auth.attempts", submission): 1,
        ("smtp.auth.failures", submission): 1,
        ("smtp.connections.active", mx): 1,
        ("smtp.replies", (("code", "250"),)): 1,
        ("smtp.refusals", (("reason", "relay-denied"),)): 1,
        ("smtp.errors.unexpected", ()): 1,
        ("notifications", (("result", "sent"),)): 1,
        ("health.check.status", (("check", "database"),)): 2,
    }
    assert points["smtp.message.processing.duration", mx].sum == 250.0
    assert points["health.check.duration", (("check", "database"),)].sum == pytest.approx(8.5)


async def test_the_collector_learns_who_speaks(collector: Collector) -> None:
    telemetry = configure(collector.url)
    telemetry.metrics.unexpected_error()
    await telemetry.stop(reactor)
    attributes = {
        attribute.key: attribute.value.string_value
        for attribute in collector.exports[0].resource_metrics[0].resource.attributes
    }
    assert attributes["service.name"] == "relaymail"
    assert attributes["service.version"]
    assert attributes["service.instance.id"]


async def test_metrics_are_exported_again_and_again(collector: Collector) -> None:
    telemetry = configure(collector.url, interval=0.1)
    telemetry.metrics.unexpected_error()
    while len(collector.exports) < 3:
        await deferLater(reactor, 0.02)
    await telemetry.stop(reactor)


async def test_stopping_does_not_wait_for_a_collector_that_is_silent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.telemetry.export.STOP_TIMEOUT", 0.3)
    monkeypatch.setattr("relaymail.telemetry.export.EXPORT_TIMEOUT", 0.5)
    collector.silent = True
    telemetry = configure(collector.url)
    telemetry.metrics.unexpected_error()
    started = time.monotonic()
    await telemetry.stop(reactor)
    assert time.monotonic() - started < 2


async def test_stopping_does_not_wait_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymail.telemetry.export.STOP_TIMEOUT", 0.3)
    telemetry = configure("http://127.0.0.1:1")
    telemetry.metrics.unexpected_error()
    started = time.monotonic()
    await telemetry.stop(reactor)
    assert time.monotonic() - started < 2


async def test_without_an_endpoint_nothing_is_recorded_and_stopping_is_nothing() -> None:
    telemetry = configure(None)
    use_everything(telemetry.metrics)
    await telemetry.stop(reactor)
    await Telemetry().stop(reactor)


def test_a_call_that_records_nothing_costs_less_than_a_microsecond() -> None:
    metrics = Metrics()
    runs = [timeit.timeit(lambda: metrics.message_received("mx", 4096), number=10_000) for _ in range(5)]
    assert min(runs) / 10_000 < 1e-6


def test_without_the_packages_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics", None)
    with pytest.raises(TelemetryError, match=r"pip install 'relaymail\[otel\]'"):
        configure("http://127.0.0.1:4318")


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/metrics"),
        ("http://collector:4318/", "http://collector:4318/v1/metrics"),
        ("https://collector/otlp", "https://collector/otlp/v1/metrics"),
        ("http://collector:4318/v1/metrics", "http://collector:4318/v1/metrics"),
    ],
)
def test_the_path_of_metrics_is_added_where_it_is_missing(endpoint: str, url: str) -> None:
    assert metrics_url(endpoint) == url
