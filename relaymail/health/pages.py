"""What the health port answers: reports as JSON, the status page, metrics."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.threads import deferToThreadPool
from twisted.web import http

from relaymail.health.monitor import HealthMonitor
from relaymail.health.page import policy, render
from relaymail.health.resource import Answer, Page, Question, prefers_html
from relaymail.health.result import Report, Status
from relaymail.health.status import StatusDesk
from relaymail.telemetry import Metrics
from relaymail.telemetry.prometheus import exposition

VARY: Final = {"Vary": "Accept"}


def pages(
    monitor: HealthMonitor, desk: StatusDesk | None, metrics: Metrics | None, *, version: str, reactor: Any
) -> dict[bytes, Page]:
    """What answers each path.

    :param desk: knows what the status page shows; ``None``: there is no such page.
    :param metrics: for ``/metrics``; ``None``: there is no such page.
    """
    found = {
        b"/healthz": _report_page(monitor.full),
        b"/healthz/live": _report_page(_live),
        b"/healthz/ready": _report_page(monitor.ready),
    }
    if desk is not None:
        found[b"/"] = _status_page(desk, lambda report: http.OK)
        found[b"/healthz"] = _either(_status_page(desk, _code), found[b"/healthz"])
    if metrics is not None:
        found[b"/metrics"] = _metrics_page(metrics, version, reactor)
    return found


async def _live() -> Report:
    """Healthy: that this is being answered shows that the process turns its reactor."""
    return Report()


def _report_page(make: Callable[[], Awaitable[Report]]) -> Page:
    async def page(question: Question) -> Answer:
        report = await make()
        return Answer(json.dumps(report.as_json()).encode(), "application/json", _code(report), VARY)

    return page


def _status_page(desk: StatusDesk, code: Callable[[Report], int]) -> Page:
    """The page for people. It waits for no check: what is wrong is wanted most when they hang."""

    async def page(question: Question) -> Answer:
        facts = await desk.facts()
        headers = {"Content-Security-Policy": policy(), "Referrer-Policy": "no-referrer", **VARY}
        return Answer(render(facts).encode(), "text/html; charset=utf-8", code(facts.report), headers)

    return page


def _either(html: Page, report: Page) -> Page:
    async def page(question: Question) -> Answer:
        as_json = question.query.get(b"format") == [b"json"]
        return await (html if prefers_html(question.accept) and not as_json else report)(question)

    return page


def _metrics_page(metrics: Metrics, version: str, reactor: Any) -> Page:
    async def page(question: Question) -> Answer:
        body, content_type = await deferToThreadPool(
            reactor, reactor.getThreadPool(), exposition, metrics.collect(), version, question.accept
        )
        return Answer(body, content_type)

    return page


def _code(report: Report) -> int:
    return http.SERVICE_UNAVAILABLE if report.status is Status.UNHEALTHY else http.OK
