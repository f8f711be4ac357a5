"""What is told of checks and their outcomes: as lines for people, as values for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from relaymail.doctor.check import Check, State
from relaymail.doctor.page import HEADINGS, KINDS
from relaymail.doctor.runner import Outcome, exit_code

WIDTH = 100
"""Columns of text; commands are never broken."""

VERIFY = "relaymail doctor run --check {id}"


def container_kind(environ: Mapping[str, str], in_container: bool) -> str:
    """Which of the kinds of places this is, as far as one can see from inside."""
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    return "compose" if in_container else "systemd"


def word(outcome: Outcome) -> str:
    """``ok``, ``skip``, or the severity of a failure, in capitals where it is an error."""
    severity = outcome.severity
    if severity is None:
        return "skip" if outcome.finding.state is State.SKIP else "ok"
    return "ERROR" if severity.value == "error" else severity.value


def overview(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A line for each outcome."""
    width = max((len(outcome.check.id) for outcome in outcomes), default=0)
    for outcome in outcomes:
        yield f"{word(outcome):5}  {outcome.check.id:{width}}  {outcome.finding.summary}"


def conclusion(outcomes: Sequence[Outcome]) -> str:
    """How many ended how, in a sentence."""
    words = [word(outcome) for outcome in outcomes]
    failed = len(words) - words.count("ok") - words.count("skip")
    parts = [f"{words.count(name)} {name}" for name in ("ERROR", "warn", "info") if name in words]
    told = f"{failed} failed ({', '.join(parts)})" if failed else "nothing failed"
    return f"{len(words)} checks: {words.count('ok')} ok, {told}, {words.count('skip')} skipped."


def details(outcome: Outcome, kind: str | None) -> Iterator[str]:
    """All of a failed outcome: what was found, and the page.

    :param kind: tell the remedy for this kind of place only, and leave out what does not mend it.
    """
    check, finding = outcome.check, outcome.finding
    yield f"{word(outcome)}: {finding.summary}"
    yield f"  {check.id} - {check.title}"
    for line in finding.details:
        yield f"  - {line}"
    if finding.publish:
        yield "  To publish in DNS:"
        yield from (f"    {line}" for line in finding.publish)
    if kind is None:
        yield from page(check)
        return
    yield from _paragraph("Why it matters", check.page.why)
    yield f"  To mend it ({HEADINGS[kind]}):"
    yield from (f"    {line}" for line in check.page.fix.of(kind).splitlines())
    yield f"  More: relaymail doctor explain {check.id}"


def page(check: Check) -> Iterator[str]:
    """The page of a check, for a terminal."""
    yield from _paragraph("What it checks", check.page.what)
    yield from _paragraph("Why it matters", check.page.why)
    yield "  Common causes:"
    for cause in check.page.causes:
        yield from textwrap.wrap(cause, WIDTH, initial_indent="  - ", subsequent_indent="    ")
    for kind in KINDS:
        yield f"  How to fix it, {HEADINGS[kind]}:"
        yield from (f"    {line}" for line in check.page.fix.of(kind).splitlines())
    yield "  How to verify:"
    yield from (f"    {line}" for line in verify(check).splitlines())
    yield f"  Related: {', '.join(check.page.related)}"


def verify(check: Check) -> str:
    """The commands that show that it is mended."""
    return "\n".join(filter(None, (VERIFY.format(id=check.id), check.page.verify)))


def heading(check: Check) -> Iterator[str]:
    """What a check is."""
    yield f"{check.id} - {check.title}"
    yield f"  Plugin {check.plugin}, severity {check.severity.value}, tags {', '.join(check.tags)}"


def _paragraph(title: str, text: str) -> Iterator[str]:
    yield f"  {title}:"
    yield from textwrap.wrap(
        text,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def check_as_json(check: Check) -> dict[str, Any]:
    """A check with its page."""
    page = check.page
    return {
        "id": check.id,
        "title": check.title,
        "plugin": check.plugin,
        "severity": check.severity.value,
        "tags": list(check.tags),
        "what": page.what,
        "why": page.why,
        "causes": list(page.causes),
        "fix": {kind: page.fix.of(kind) for kind in KINDS},
        "verify": verify(check),
        "related": list(page.related),
    }


def outcomes_as_json(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """The whole report."""
    states = [outcome.finding.state.value for outcome in outcomes]
    return {
        "exit_code": exit_code(outcomes),
        "duration_ms": round(seconds * 1000, 1),
        "passed": states.count("pass"),
        "failed": states.count("fail"),
        "skipped": states.count("skip"),
        "checks": [_outcome(outcome) for outcome in outcomes],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    finding, told = outcome.finding, check_as_json(outcome.check)
    severity = outcome.severity
    found = {
        "state": finding.state.value,
        "failed_with": None if severity is None else severity.value,
        "summary": finding.summary,
        "details": list(finding.details),
        "publish": list(finding.publish),
        "data": dict(finding.data),
        "duration_ms": round(outcome.seconds * 1000, 1),
    }
    head = ("id", "title", "plugin", "severity", "tags")
    if severity is None:
        return {**{key: told[key] for key in head}, **found}
    return {
        **{key: told[key] for key in head},
        **found,
        "page": {k: v for k, v in told.items() if k not in head},
    }
