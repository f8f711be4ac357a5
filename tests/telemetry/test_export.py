"""That metrics reach a collector, and that one that fails harms nobody."""

from __future__ import annotations

import sys
import time

import pytest
from twisted.logger import capturedLogs

from relaymail.message.ids import uuid7
from relaymail.telemetry import TelemetryError, configure
from relaymail.telemetry.export import METRICS_PATH, TRACES_PATH, signal_url
from tests.conftest import reactor
from tests.support.waiting import until
from tests.telemetry.collector import Collector


async def test_every_kind_reaches_the_collector_as_what_it_is(collector: Collector) -> None:
    telemetry = configure(collector.url)
    metrics = telemetry.metrics
    metrics.message_received("mx", 4096)
    metrics.connection_opened("mx")
    metrics.check_finished("database", 2, 0.0085)
    for seconds in (0.0005, 0.25, 100):
        metrics.message_processed("mx", seconds)
    before = time.time_ns()
    await telemetry.stop(reactor)
    assert collector.paths == [b"/v1/metrics"]
    points, kinds = collector.points(), collector.metrics()
    mx, database = (("listener", "mx"),), (("check", "database"),)
    received = points["smtp.messages.received", mx]
    assert received.as_int == 1
    assert received.start_time_unix_nano < before <= received.time_unix_nano
    assert kinds["smtp.messages.received"].sum.is_monotonic
    assert kinds["smtp.messages.received"].unit == "{message}"
    assert points["smtp.connections.active", mx].as_int == 1
    assert not kinds["smtp.connections.active"].sum.is_monotonic
    assert kinds["health.check.status"].WhichOneof("data") == "gauge"
    assert points["health.check.status", database].as_int == 2
    assert points["health.check.duration", database].as_double == 0.0085
    processing = points["smtp.message.processing.duration", mx]
    assert (processing.count, processing.sum) == (3, 100_250.5)
    counted = dict(zip([*processing.explicit_bounds, None], processing.bucket_counts, strict=True))
    assert {bound: count for bound, count in counted.items() if count} == {1: 1, 500: 1, None: 1}
    assert not processing.HasField("min")
    assert "queue.rows" not in kinds, "what was never seen is not 0"


async def test_the_collector_learns_who_speaks(collector: Collector) -> None:
    telemetry = configure(collector.url)
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
    telemetry.start(reactor)
    await until(reactor, lambda: len(collector.exports) >= 3)
    await telemetry.stop(reactor)


async def test_stopping_does_not_wait_for_a_collector_that_is_silent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaymail.telemetry.export.STOP_TIMEOUT", 0.3)
    monkeypatch.setattr("relaymail.telemetry.export.EXPORT_TIMEOUT", 0.5)
    collector.silent = True
    telemetry = configure(collector.url)
    await telemetry.stop(reactor)


async def test_stopping_does_not_wait_for_a_collector_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymail.telemetry.export.STOP_TIMEOUT", 0.3)
    telemetry = configure("http://127.0.0.1:1", trace_ratio=1)
    await telemetry.stop(reactor)


async def test_without_an_endpoint_numbers_are_kept_and_nothing_is_sent() -> None:
    telemetry = configure(None, trace_ratio=1)
    telemetry.start(reactor)
    assert telemetry.tracer is None
    telemetry.metrics.unexpected_error()
    assert telemetry.metrics.unexpected.total() == 1
    await telemetry.stop(reactor)


@pytest.mark.parametrize("module", ["opentelemetry.sdk.resources", "opentelemetry.exporter.otlp.proto.http"])
def test_without_the_packages_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", raising=False)
    with pytest.raises(TelemetryError, match=r"pip install 'relaymail\[otel\]'"):
        configure("http://127.0.0.1:4318")


@pytest.mark.parametrize(
    ("endpoint", "base"),
    [
        ("http://collector:4318", "http://collector:4318"),
        ("http://collector:4318/", "http://collector:4318"),
        ("https://collector/otlp", "https://collector/otlp"),
        ("http://collector:4318/v1/metrics", "http://collector:4318"),
        ("http://collector:4318/v1/traces/", "http://collector:4318"),
    ],
)
def test_the_path_of_a_signal_is_added_where_it_is_missing(endpoint: str, base: str) -> None:
    assert signal_url(endpoint, METRICS_PATH) == base + "/v1/metrics"
    assert signal_url(endpoint, TRACES_PATH) == base + "/v1/traces"


async def test_a_collector_that_is_away_is_one_line_and_its_return_another() -> None:
    collector = Collector()
    telemetry = configure(collector.url, trace_ratio=1, interval=0.05)
    assert telemetry.tracer is not None
    with capturedLogs() as lines:
        telemetry.start(reactor)
        await until(reactor, lambda: len(collector.exports) > 2)
        collector.status = 400
        seen = len(collector.exports)
        trace = telemetry.tracer.begin(uuid7(), "mx", "SESSION")
        assert trace is not None
        trace.end()
        await until(reactor, lambda: len(collector.exports) > seen + 5)
        collector.status = 200
        seen = len(collector.exports)
        await until(reactor, lambda: len(collector.exports) > seen + 5)
        await telemetry.stop(reactor)
    await collector.stop()
    ours = [line for line in lines if str(line["log_namespace"]).startswith(("relaymail", "opentelemetry"))]
    assert [line["log_level"].name for line in ours] == ["warn", "info"]
    assert "400" in ours[0]["why"]
