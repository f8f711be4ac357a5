"""Sending metrics to an OpenTelemetry collector (OTLP over HTTP), where one is configured."""

from __future__ import annotations

import os
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from relaymail.telemetry.metrics import METER, Metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider

log = Logger()

INTERVAL = 30.0
"""Seconds between exports."""
EXPORT_TIMEOUT = 5.0
STOP_TIMEOUT = 5.0
"""Seconds that stopping may take: the last export is tried, and given up with the process."""
METRICS_PATH = "/v1/metrics"
GRPC_PORT = 4317


class TelemetryError(Exception):
    """Metrics cannot be exported; the text is for the operator."""


class Telemetry:
    """The metrics of the process, and what has to end with it. Made by :func:`configure`."""

    def __init__(self, provider: MeterProvider | None = None) -> None:
        self._provider = provider
        self.metrics = Metrics(None if provider is None else provider.get_meter(METER))

    async def stop(self, reactor: Any) -> None:
        """Export what is left, for at most :data:`STOP_TIMEOUT`."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        stopping: Deferred[None] = deferToThreadPool(
            reactor, reactor.getThreadPool(), provider.shutdown, timeout_millis=STOP_TIMEOUT * 1000
        )
        stopping.addTimeout(STOP_TIMEOUT, reactor)
        try:
            await stopping
        except DeferredTimeout:
            log.warn("The last metrics were not exported: the collector did not answer in time")


def metrics_url(endpoint: str) -> str:
    """Where metrics are posted: ``Otel:Endpoint`` may end in ``/v1/metrics`` or leave it to us."""
    base = endpoint.rstrip("/")
    return base if base.endswith(METRICS_PATH) else base + METRICS_PATH


def configure(endpoint: str | None, *, interval: float = INTERVAL) -> Telemetry:
    """Telemetry that exports to ``endpoint`` every ``interval`` seconds; nowhere if that is ``None``.

    Starts a thread: call it after the process has become a daemon.

    :raises TelemetryError: the packages for it are not installed.
    """
    if endpoint is None:
        return Telemetry()
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
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
    exporter = OTLPMetricExporter(endpoint=metrics_url(endpoint), timeout=EXPORT_TIMEOUT)
    reader = PeriodicExportingMetricReader(
        exporter, export_interval_millis=interval * 1000, export_timeout_millis=EXPORT_TIMEOUT * 1000
    )
    resource = Resource.create(
        {
            "service.name": "relaymail",
            "service.version": version("relaymail"),
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
        }
    )
    return Telemetry(MeterProvider([reader], resource=resource, shutdown_on_exit=False))
