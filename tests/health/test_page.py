"""The status page: what it shows, to whom, and that it can do no harm."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from relaymail.health import Activity, HealthCheck, HealthMonitor, HealthServer, Result, Status, StatusDesk
from relaymail.health.history import STEPS, Step
from relaymail.health.page import Facts, Waiting, policy, render
from relaymail.health.page.words import ago, count, days, duration, milliseconds, rate, span
from relaymail.health.result import CheckReport, Report
from relaymail.telemetry import Metrics
from tests.conftest import reactor, run_on_reactor
from tests.health.support import Check, fixed, request
from tests.support.waiting import until

HEALTHY = fixed("database", Result(Status.HEALTHY, "PostgreSQL connection is healthy"))
UNHEALTHY = fixed("dns-mx", Result(Status.UNHEALTHY, "DNS MX resolution failed (gmail.com: SERVFAIL)"))
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

Serve = Callable[..., tuple[str, Metrics]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves checks, page and metrics on loopback; ends with the test."""
    running: list[tuple[HealthMonitor, HealthServer]] = []

    def start(*checks: HealthCheck) -> tuple[str, Metrics]:
        monitor, metrics = HealthMonitor(checks, ready=(), clock=reactor), Metrics()
        activity = Activity(metrics, [], reactor=reactor)
        desk = StatusDesk(
            monitor,
            activity,
            metrics,
            server="mail.example.test",
            version="9.8.7",
            clock=reactor,
            now=lambda: 0,
        )
        server = HealthServer(monitor, "127.0.0.1", 0, reactor=reactor, desk=desk, metrics=metrics)
        server.start()
        running.append((monitor, server))
        return f"http://127.0.0.1:{server.addresses[0][1]}", metrics

    yield start
    for monitor, server in running:
        monitor.stop()
        run_on_reactor(server.stop())


def accepting(accept: str) -> dict[str, Any]:
    return {"headers": {"Accept": accept}}


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("text/*", True),
        ("TEXT/HTML;q=0.5, application/json;q=0.4", True),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.9", False),
        ("text/html, application/json", False),
        ("text/html;q=0", False),
        ("text/html;q=nonsense", False),
        ("text/html;q=0.1, */*;q=0.5", False),
        ("", False),
        ("image/png", False),
        (",;q=,/;;", False),
    ],
)
async def test_browsers_get_the_page_and_programs_the_report(serve: Serve, accept: str, html: bool) -> None:
    url, _ = serve(HEALTHY)
    response = await request("GET", url + "/healthz", **accepting(accept))
    assert response.headers["content-type"] == ("text/html; charset=utf-8" if html else "application/json")
    assert response.headers["vary"] == "Accept"
    assert response.headers["cache-control"] == "no-store"


async def test_the_root_is_the_page_for_everyone(serve: Serve) -> None:
    url, _ = serve(HEALTHY)
    response = await request("GET", url + "/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert b"PostgreSQL connection is healthy" in response.body


async def test_a_browser_can_have_the_report_too(serve: Serve) -> None:
    url, _ = serve(HEALTHY)
    page = (await request("GET", url + "/", **accepting(BROWSER))).body.decode()
    [link] = re.findall(r'href="(/healthz[^"]*)"', page)
    response = await request("GET", url + link, **accepting(BROWSER))
    assert response.json["status"] == "Healthy"


@pytest.mark.parametrize(("checks", "code"), [((HEALTHY,), 200), ((HEALTHY, UNHEALTHY), 503)])
async def test_the_page_has_the_code_of_the_report(
    serve: Serve, checks: tuple[HealthCheck, ...], code: int
) -> None:
    url, _ = serve(*checks)
    assert (await request("GET", url + "/healthz", **accepting(BROWSER))).code == code
    assert (await request("GET", url + "/")).code == 200, "the page itself is there"
    head = await request("HEAD", url + "/healthz", **accepting(BROWSER))
    assert (head.code, head.body) == (code, b"")
    assert int(head.headers["content-length"]) > 1000


async def test_the_page_waits_for_no_check_that_has_been_run(serve: Serve) -> None:
    check = Check()
    url, _ = serve(check.check)
    asked = Deferred.fromCoroutine(request("GET", url + "/"))
    await until(reactor, lambda: len(check.runs) == 1)
    check.end(Status.DEGRADED, "so so")
    assert b"so so" in (await asked).body
    assert b"so so" in (await request("GET", url + "/")).body
    assert len(check.runs) == 1


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz"])
async def test_every_path_refuses_other_methods(serve: Serve, path: str) -> None:
    url, _ = serve(HEALTHY)
    response = await request("POST", url + path)
    assert (response.code, response.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/metrics/x", "/status", "/style.css", "//", "/%2e%2e/etc/passwd"])
async def test_other_paths_are_not_found(serve: Serve, path: str) -> None:
    url, _ = serve(HEALTHY)
    response = await request("GET", url + path)
    assert response.code == (200 if path == "//" else 404)


async def test_metrics_are_served_in_the_format_that_is_asked_for(serve: Serve) -> None:
    url, metrics = serve(HEALTHY)
    metrics.message_received("mx", 4096)
    response = await request("GET", url + "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'relaymail_smtp_messages_received_total{listener="mx"} 1.0\n' in response.body
    response = await request(
        "GET", url + "/metrics", **accepting("application/openmetrics-text;version=1.0.0")
    )
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.body.endswith(b"# EOF\n")
    head = await request("HEAD", url + "/metrics")
    assert (head.code, head.body) == (200, b"")


# What the page says


def report(*checks: tuple[str, Status, str | None]) -> Report:
    return Report(
        tuple(CheckReport(name, ("tag",), 0.012, Result(status, text)) for name, status, text in checks), 0.1
    )


def facts(**changes: Any) -> Facts:
    given: dict[str, Any] = {
        "server": "mail.example.test",
        "version": "9.8.7",
        "uptime": 3 * 86400 + 4 * 3600 + 59,
        "age": 12.3,
        "report": report(("database", Status.HEALTHY, "fine"), ("certificate", Status.DEGRADED, "12 days")),
        "history": {"database": [None] * (STEPS - 1) + [Step(1, Status.UNHEALTHY, 4.5)]},
        "rate": 1234.5,
        "rates": [None, 0.0, 2000.0],
        "sessions": 37,
        "outbox": Waiting(1480, 1480, 4, 840.0),
        "queue": Waiting(12, 0, 0, 0.0),
        "certificate": 12.9,
    }
    return Facts(**{**given, **changes})


class Text(HTMLParser):
    """The text that people see, and what is loaded or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._hidden = 0
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden += tag in ("style", "script", "svg")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script", "svg")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def test_everything_that_matters_is_on_the_page_without_javascript() -> None:
    page = Text(render(facts()))
    text = page.text.replace("\N{NO-BREAK SPACE}", " ")
    for part in (
        "Degraded – mail.example.test",
        "certificate 12 days",
        "up 3 d 4 h",
        "looked at 12 s ago",
        "Messages per minute 1,234 at most 2,000, last 6 hours",
        "Sessions 37",
        "Outbox 1,480 oldest due for 14 min, 4 given up",
        "Queue 12 none overdue",
        "Certificate 12 days until it expires",
        "database tag Healthy fine 12 ms",
        "relaymail 9.8.7",
    ):
        assert part in text
    assert ("meta", {"http-equiv": "refresh", "content": "15"}) in page.tags


def test_what_is_not_known_is_not_made_up() -> None:
    page = Text(render(facts(outbox=None, queue=None, certificate=None, rates=(), history={})))
    assert "Queue – not known" in page.text
    assert "Outbox – not known" in page.text
    assert "Certificate – none" in page.text


def test_all_well_is_said_in_so_many_words() -> None:
    assert (
        "All 1 checks are well."
        in Text(render(facts(report=report(("database", Status.HEALTHY, None))))).text
    )


@pytest.mark.parametrize("status", Status)
def test_a_status_is_told_in_title_heading_icon_and_row(status: Status) -> None:
    page = render(facts(report=report(("database", status, None))))
    assert f"<title>{status.value} – " in page
    assert f'<header class="{status.value.lower()}"' in page
    assert f'<span role="status">{status.value}</span>' in page
    assert f'class="state {status.value.lower()}"' in page


def test_nothing_that_a_check_says_becomes_markup() -> None:
    nasty = "<script>alert(1)</script>\" onload='x' &amp;"
    page = render(facts(server=nasty, report=report(("database", Status.UNHEALTHY, nasty))))
    assert "<script>alert" not in page
    assert "onload='x'" not in page
    assert nasty in Text(page).text


def test_nothing_is_loaded_from_anywhere() -> None:
    page = Text(render(facts()))
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "form"), tag
        assert "src" not in attributes
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        if "href" in attributes and tag != "a":
            assert str(attributes["href"]).startswith("data:image/svg+xml,")


def test_the_policy_lets_in_what_is_on_the_page_and_nothing_else() -> None:
    page = render(facts())
    for tag in ("style", "script"):
        [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy()
    assert "default-src 'none'" in policy()
    assert "unsafe" not in policy()


async def test_the_page_comes_with_its_policy(serve: Serve) -> None:
    url, _ = serve(HEALTHY)
    headers = (await request("GET", url + "/")).headers
    assert headers["content-security-policy"] == policy()
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_drawings_are_well_formed_and_say_what_they_show() -> None:
    drawings = re.findall(r"<svg class=.*?</svg>", render(facts()), re.DOTALL)
    assert len(drawings) > 4
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        if root.get("aria-hidden") != "true":
            assert root.get("role") == "img"
            assert root.get("aria-label") == root.findtext("title")
    assert "database, last 6 hours: Unhealthy 100 %, slowest 4.50\N{NO-BREAK SPACE}s" in render(facts())


def test_the_table_is_one_to_those_who_hear_it() -> None:
    """Laid out otherwise on a phone, a table is none any more unless its roles are said."""
    page = Text(render(facts()))
    rows = [attributes for tag, attributes in page.tags if tag == "tr"]
    assert all(attributes.get("role") == "row" for attributes in rows)
    heads = [attributes.get("role") for tag, attributes in page.tags if tag == "th"]
    assert heads == ["columnheader"] * 5 + ["rowheader"] * 2
    assert {attributes.get("role") for tag, attributes in page.tags if tag == "td"} == {"cell"}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_text_are_told_from_their_ground(theme: str) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    page = render(facts())
    blocks = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[0 if theme == "light" else 1]))
    for text in ("text", "quiet", "healthy", "degraded", "unhealthy"):
        for ground in ("ground", "card"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["on"], colours["unhealthy"]) >= 4.5


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Numbers and times


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (count(1234567), "1,234,567"),
        (rate(0), "0"),
        (rate(0.42), "0.4"),
        (rate(12.4), "12"),
        (milliseconds(0.00004), "0.04 ms"),
        (milliseconds(0.0014), "1.4 ms"),
        (milliseconds(0.0124), "12 ms"),
        (milliseconds(4.5), "4.50 s"),
        (duration(0), "0 s"),
        (duration(59.9), "59 s"),
        (duration(3600), "1 h"),
        (duration(86400 + 30), "1 d"),
        (duration(90061), "1 d 1 h"),
        (duration(90061, 1), "1 d"),
        (ago(0.4), "just now"),
        (ago(75), "1 min 15 s ago"),
        (days(1.9), "1 day"),
        (days(0.5), "0 days"),
        (days(-0.1), "expired"),
        (span(21600), "6 hours"),
        (span(60), "1 minute"),
    ],
)
def test_numbers_are_as_people_read_them(shown: str, text: str) -> None:
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == text


# What is gathered


async def test_the_desk_gathers_from_where_things_are() -> None:
    clock, metrics = Clock(), Metrics()
    monitor = HealthMonitor([HEALTHY], ready=(), clock=clock)
    activity = Activity(metrics, [], reactor=clock)
    desk = StatusDesk(
        monitor,
        activity,
        metrics,
        server="mail.example.test",
        version="1",
        clock=clock,
        now=lambda: 1_000_000,
    )
    metrics.connection_opened("mx")
    metrics.outbox_seen(pending=3, due=2, dead=1, oldest=9.0)
    metrics.watch_certificate(lambda: 1_000_000 + 36.5 * 86400)
    clock.advance(100)
    await monitor.full()
    clock.advance(20)
    found = await desk.facts()
    assert (found.server, found.version, found.uptime, found.age) == ("mail.example.test", "1", 120, 20)
    assert [check.name for check in found.report.checks] == ["database"]
    assert found.history["database"][-1] == Step(0, Status.HEALTHY, 0.0)
    assert found.sessions == 1
    assert found.outbox == Waiting(3, 2, 1, 9.0)
    assert found.queue is None
    assert found.certificate == 36.5
