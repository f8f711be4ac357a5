"""Sending metrics and traces to an OpenTelemetry collector (OTLP over HTTP), where one is configured."""

from __future__ import annotations

import os
import socket
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.telemetry.metrics import Metrics
from relaymail.telemetry.reach import Reach
from relaymail.telemetry.spans import Tracer

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.resources import Resource

    from relaymail.telemetry.traces import Traces

log = Logger()

INTERVAL: Final = 30.0
"""Seconds between exports."""
EXPORT_TIMEOUT: Final = 5.0
STOP_TIMEOUT: Final = 5.0
"""Seconds that stopping may take: the last export is tried, and given up with the process."""
METRICS_PATH: Final = "/v1/metrics"
TRACES_PATH: Final = "/v1/traces"
GRPC_PORT: Final = 4317


class TelemetryError(Exception):
    """Nothing can be exported; the text is for the operator."""


class Telemetry:
    """The metrics of the process, and what sends them and its traces. Made by :func:`configure`."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.tracer: Tracer | None = None
        """Traces messages; ``None``: nobody wants traces."""

    def start(self, reactor: Any) -> None:
        """Begin to export."""

    async def stop(self, reactor: Any) -> None:
        """Export what is left, for at most :data:`STOP_TIMEOUT` seconds."""


class _Exporting(Telemetry):
    """Telemetry with a collector."""

    def __init__(
        self,
        exporter: OTLPMetricExporter,
        resource: Resource,
        traces: Traces | None,
        reach: Reach,
        interval: float,
    ) -> None:
        super().__init__()
        self.tracer = traces
        self._exporter = exporter
        self._resource = resource
        self._traces = traces
        self._reach = reach
        self._interval = interval
        self._began = time.time_ns()
        self._loop: LoopingCall | None = None

    def start(self, reactor: Any) -> None:
        self._reach.start()
        self._loop = LoopingCall(self._export, reactor)
        self._loop.clock = reactor
        self._loop.start(self._interval, now=False).addErrback(self._loop_broke)

    async def stop(self, reactor: Any) -> None:
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        stopping: Deferred[None] = Deferred.fromCoroutine(self._finish(reactor))
        stopping.addTimeout(STOP_TIMEOUT, reactor)
        try:
            await stopping
        except DeferredTimeout:
            log.warn("The last metrics were not exported: the collector did not answer in time")
        self._reach.stop()

    async def _finish(self, reactor: Any) -> None:
        await self._export(reactor)
        pool = reactor.getThreadPool()
        await deferToThreadPool(reactor, pool, self._exporter.shutdown)
        if self._traces is not None:
            await deferToThreadPool(reactor, pool, self._traces.shutdown)

    async def _export(self, reactor: Any) -> None:
        """One export; after one that fails the next one sends the sums again."""
        from opentelemetry.sdk.metrics.export import MetricExportResult

        from relaymail.telemetry.otlp import metrics_data

        data = metrics_data(self.metrics.collect(), self._resource, self._began, time.time_ns())
        result: MetricExportResult = await deferToThreadPool(
            reactor, reactor.getThreadPool(), self._exporter.export, data
        )
        self._reach.note(result is MetricExportResult.SUCCESS)

    def _loop_broke(self, failure: Failure) -> None:
        log.failure("Metrics are not exported any more", failure=failure)


def signal_url(endpoint: str, path: str) -> str:
    """Where a signal is posted: ``Otel:Endpoint`` may end in a signal's path or leave it to us."""
    base = endpoint.rstrip("/")
    for known in (METRICS_PATH, TRACES_PATH):
        base = base.removesuffix(known)
    return base + path


def configure(endpoint: str | None, *, trace_ratio: float = 0.0, interval: float = INTERVAL) -> Telemetry:
    """Telemetry that exports to ``endpoint`` every ``interval`` seconds; nowhere if that is ``None``.

    Starts a thread where messages are traced: call it after the process has become a daemon.

    :param trace_ratio: share of the messages that are traced, 0 to 1.
    :raises TelemetryError: the packages for it are not installed.
    """
    if endpoint is None:
        return Telemetry()
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        raise TelemetryError(
            "Otel:Endpoint is set, but the packages that export to it are not installed: "
            "pip install 'relaymail[otel]'"
        ) from None
    if urlsplit(endpoint).port == GRPC_PORT:
        log.warn(
            "Otel:Endpoint names port {port}, gRPC as a rule; this speaks OTLP over HTTP, usually at 4318",
            port=GRPC_PORT,
        )
    resource = Resource.create(
        {
            "service.name": "relaymail",
            "service.version": version("relaymail"),
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    exporter = OTLPMetricExporter(endpoint=signal_url(endpoint, METRICS_PATH), timeout=EXPORT_TIMEOUT)
    reach = Reach()
    return _Exporting(exporter, resource, _traces(endpoint, trace_ratio, resource, reach), reach, interval)


def _traces(endpoint: str, ratio: float, resource: Resource, reach: Reach) -> Traces | None:
    if ratio <= 0:
        return None
    from relaymail.telemetry.traces import Traces

    return Traces(signal_url(endpoint, TRACES_PATH), ratio, resource, EXPORT_TIMEOUT, reach.note)
