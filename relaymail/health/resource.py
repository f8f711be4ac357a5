"""Health over HTTP: ``/healthz``, ``/healthz/live`` and ``/healthz/ready``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from relaymail.health.monitor import HealthMonitor
from relaymail.health.result import Report, Status

METHODS = (b"GET", b"HEAD")


class HealthRequest(Request):
    """A request that takes no body and whose answer does not tell what software gives it."""

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Set a header of the answer; twisted.web's own ``Server`` names its version and is left out."""
        if name.lower() != b"server":
            super().setHeader(name, value)  # type: ignore[no-untyped-call]

    def gotLength(self, length: int | None) -> None:
        """A body of ``length`` bytes will follow; it will be thrown away, so it needs no file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Throw a part of the body away."""


class HealthResource(Resource):
    """Answers for the whole site: these three paths, and nothing else."""

    isLeaf = True

    def __init__(self, monitor: HealthMonitor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reports: dict[bytes, Callable[[], Awaitable[Report]]] = {
            b"/healthz": monitor.full,
            b"/healthz/live": _live,
            b"/healthz/ready": monitor.ready,
        }

    def render(self, request: Any) -> bytes | int:
        """Answer, or begin to."""
        make = self._reports.get(request.path.rstrip(b"/"))
        if make is None:
            return _refuse(request, http.NOT_FOUND)
        if request.method not in METHODS:
            request.setHeader(b"Allow", b", ".join(METHODS))
            return _refuse(request, http.NOT_ALLOWED)
        answering = Deferred.fromCoroutine(_answer(request, make))
        answering.addErrback(_gone, request)
        request.notifyFinish().addErrback(lambda _: answering.cancel())
        return NOT_DONE_YET


async def _live() -> Report:
    """Healthy: that this is being answered shows that the process turns its reactor."""
    return Report()


async def _answer(request: Any, make: Callable[[], Awaitable[Report]]) -> None:
    report = await make()
    request.setResponseCode(http.SERVICE_UNAVAILABLE if report.status is Status.UNHEALTHY else http.OK)
    body = json.dumps(report.as_json()).encode()
    request.setHeader(b"Content-Type", b"application/json")
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(b"Content-Length", b"%d" % len(body))
    request.write(body)
    request.finish()


def _gone(failure: Failure, request: Any) -> None:
    """The client has gone away, which is nothing; or the report failed, which must not leave it waiting."""
    if not isinstance(failure.value, CancelledError):
        request.processingFailed(failure)


def _refuse(request: Any, code: int) -> bytes:
    request.setResponseCode(code)
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    request.setHeader(b"Cache-Control", b"no-store")
    return http.RESPONSES[code] + b"\n"
