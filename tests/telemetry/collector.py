"""An OpenTelemetry collector for tests."""

from __future__ import annotations

import gzip
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from twisted.internet import reactor as the_reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

reactor: Any = the_reactor


class Collector(Resource):
    """An OTLP collector over HTTP on loopback."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        """Whether it takes requests and never answers."""
        self.status = 200
        self.paths: list[bytes] = []
        self.exports: list[ExportMetricsServiceRequest] = []
        self._traces: list[ExportTraceServiceRequest] = []
        self._port: Any = reactor.listenTCP(0, Site(self), interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}"

    async def stop(self) -> None:
        """Close the port."""
        await self._port.stopListening()

    def render_POST(self, request: Request) -> bytes | int:
        self.paths.append(request.path)
        content: Any = request.content
        body = content.read()
        if request.getHeader("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if request.path == b"/v1/traces":
            self._traces.append(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
        else:
            self.exports.append(ExportMetricsServiceRequest.FromString(body))
            answer = ExportMetricsServiceResponse().SerializeToString()
        request.setResponseCode(self.status)
        return NOT_DONE_YET if self.silent else bytes(answer)

    def metrics(self) -> dict[str, Any]:
        """The metrics of the last export by name."""
        [resource] = self.exports[-1].resource_metrics
        [scope] = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    def points(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], Any]:
        """The data points of the last export by name and attributes."""
        found = {}
        for metric in self.metrics().values():
            for point in getattr(metric, metric.WhichOneof("data")).data_points:
                found[metric.name, attributes_of(point)] = point
        return found

    def spans(self) -> dict[str, Any]:
        """All spans that came, by name; where there are several of one name, the last."""
        return {
            span.name: span
            for export in self._traces
            for resource in export.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


def attributes_of(thing: Any) -> tuple[tuple[str, str], ...]:
    """Names and values, in their order."""
    return tuple((a.key, a.value.string_value or str(a.value.int_value)) for a in thing.attributes)
