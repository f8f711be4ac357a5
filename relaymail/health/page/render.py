"""The status page, made here and nowhere else: what a browser shows later is this once more."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

from relaymail.health.history import STEP, STEPS, Step
from relaymail.health.page.drawing import checks_strip, favicon, icon, rate_strip
from relaymail.health.page.words import ago, count, days, duration, milliseconds, rate, span
from relaymail.health.result import CheckReport, Report, Status

REFRESH: Final = 15
"""Seconds after which a browser without JavaScript loads the page again."""
SPAN: Final = f"last {span(STEP * STEPS)}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much waits somewhere."""

    pending: int
    due: int
    dead: int
    oldest: float
    """Seconds that the most overdue has waited."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page shows."""

    server: str
    """Name of the mail server."""
    version: str
    uptime: float
    """Seconds since the start."""
    age: float
    """Seconds since the checks were looked at."""
    report: Report
    history: Mapping[str, Sequence[Step | None]] = field(default_factory=dict)
    """Of each check, by its name."""
    rate: float = 0.0
    """Messages in the last minute."""
    rates: Sequence[float | None] = ()
    """Messages per minute in the last hours."""
    sessions: int = 0
    outbox: Waiting | None = None
    queue: Waiting | None = None
    certificate: float | None = None
    """Days for which it is good."""


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


@cache
def policy() -> str:
    """The page's Content-Security-Policy: its own style and script, its own picture, its own address."""
    style, script = _hash(_asset("style.css")), _hash(_asset("update.js"))
    return (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def render(facts: Facts) -> str:
    """The page."""
    status = facts.report.status
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{status.value} – {escape(facts.server)}</title>
<link rel="icon" href="{favicon(status)}">
<style>{_asset("style.css")}</style>
<noscript><meta http-equiv="refresh" content="{REFRESH}"></noscript>
</head>
<body>
<p id="lost" role="alert" hidden></p>
<main>
{_head(facts)}
<section aria-labelledby="figures">
<h2 id="figures">At the moment</h2>
<dl class="tiles" data-part="figures">
{"".join(_tiles(facts))}</dl>
</section>
<section aria-labelledby="checks">
<h2 id="checks">Checks</h2>
<table role="table" aria-labelledby="checks">
<thead role="rowgroup"><tr role="row"><th role="columnheader" scope="col">Check</th>\
<th role="columnheader" scope="col">State</th><th role="columnheader" scope="col">What it found</th>\
<th role="columnheader" scope="col" class="number">Took</th>\
<th role="columnheader" scope="col">{SPAN.capitalize()}</th></tr></thead>
<tbody role="rowgroup" data-part="checks">
{"".join(_row(check, facts) for check in facts.report.checks)}</tbody>
</table>
</section>
</main>
<footer data-part="foot"><p>relaymail {escape(facts.version)} · \
<a href="/healthz?format=json">report as JSON</a> · <a href="/metrics">metrics</a></p></footer>
<script>{_asset("update.js")}</script>
</body>
</html>
"""


def _head(facts: Facts) -> str:
    status = facts.report.status
    troubles = [check for check in facts.report.checks if check.result.status is not Status.HEALTHY]
    if troubles:
        said = "".join(
            f"<li><strong>{escape(check.name)}</strong> {_described(check)}</li>" for check in troubles
        )
        summary = f"<ul>{said}</ul>"
    else:
        summary = f"<p>All {len(facts.report.checks)} checks are well.</p>"
    return f"""<header class="{status.value.lower()}" data-part="head">
<h1>{icon(status)}<span role="status">{status.value}</span></h1>
<div class="summary">{summary}</div>
<p class="where"><strong>{escape(facts.server)}</strong> · <span>up {duration(facts.uptime)}</span> ·
<span>looked at {ago(facts.age)}</span></p>
</header>"""


def _tiles(facts: Facts) -> Iterator[str]:
    rates = facts.rates or [None]
    # A minute may have been busier than any of the steps, which are longer
    highest = max((each for each in (*rates, facts.rate) if each is not None), default=0.0)
    strip = rate_strip(rates, f"Messages per minute, {SPAN}, at most {rate(highest)}")
    yield _tile("Messages per minute", rate(facts.rate), f"{strip}at most {rate(highest)}, {SPAN}", "wide")
    yield _tile("Sessions", count(facts.sessions), "open now")
    yield _waiting("Queue", facts.queue)
    yield _waiting("Outbox", facts.outbox)
    if facts.certificate is None:
        yield _tile("Certificate", "–", "none")
    else:
        yield _tile("Certificate", days(facts.certificate), "until it expires")


def _waiting(name: str, waiting: Waiting | None) -> str:
    if waiting is None:
        return _tile(name, "–", "not known")
    notes = [f"oldest due for {duration(waiting.oldest, 1)}" if waiting.due else "none overdue"]
    if waiting.dead:
        notes.append(f"{count(waiting.dead)} given up")
    return _tile(name, count(waiting.pending), ", ".join(notes), "trouble" if waiting.dead else "")


def _tile(name: str, value: str, note: str, kind: str = "") -> str:
    return (
        f'<div class="tile {kind}"><dt>{name}</dt><dd><span class="value">{value}</span>'
        f'<span class="note">{note}</span></dd></div>\n'
    )


def _row(check: CheckReport, facts: Facts) -> str:
    steps = facts.history.get(check.name, ())
    status = check.result.status
    tags = f'<span class="tags">{escape(", ".join(check.tags))}</span>'
    return (
        f'<tr role="row"><th role="rowheader" scope="row">{escape(check.name)}{tags}</th>'
        f'<td role="cell" class="state {status.value.lower()}">{icon(status)}{status.value}</td>'
        f'<td role="cell" class="found">{_described(check)}</td>'
        f'<td role="cell" class="number took">{milliseconds(check.duration)}</td>'
        f'<td role="cell" class="past">{checks_strip(steps, _past(check.name, steps))}</td></tr>\n'
    )


def _described(check: CheckReport) -> str:
    return escape(check.result.description or "")


def _past(name: str, steps: Sequence[Step | None]) -> str:
    """The last hours of a check in words."""
    seen = [step for step in steps if step is not None]
    if not seen:
        return f"{escape(name)}: nothing yet"
    parts = [
        f"{status.value} {round(100 * share)} %"
        for status in Status
        if (share := sum(step.worst is status for step in seen) / len(seen))
    ]
    slowest = max(step.slowest for step in seen)
    return f"{escape(name)}, {SPAN}: {', '.join(parts)}, slowest {milliseconds(slowest)}"
