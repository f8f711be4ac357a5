"""Writes ``docs/reference/metrics.md``, the reference of all metrics, from the instruments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from relaymail.telemetry.instruments import MOST_SERIES, Description, Kind
from relaymail.telemetry.metrics import OUTBOX_STATES, QUEUE_STATES, Metrics
from relaymail.telemetry.prometheus import name_of

_INTRODUCTION = """\
# Metrics

<!-- Made by `python -m relaymail.telemetry.reference > docs/reference/metrics.md`; do not edit. -->

One set of numbers, two ways out: at `/metrics` on the health port for Prometheus, always; and to an
OpenTelemetry collector, where `Otel:Endpoint` names one. [Monitoring](../how-to/monitoring.md) says how to
set up both and what to watch.

Names are as each side has them. Prometheus gets base units: what is in milliseconds for OpenTelemetry is in
seconds there. A histogram has `_bucket`, `_sum` and `_count` behind its Prometheus name. Prometheus also gets
`relaymail_build_info{version}` and the `process_*` metrics of its client library; OpenTelemetry gets version,
host and process as attributes of the resource (`service.name` is `relaymail`).

A metric without a number is not shown: no queue where nothing is sent on, no certificate where there is none.
Numbers start at 0 with the process.
"""


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


_LABELS = {
    "check": "name of a health check: `database`, `smtp`, `dns-mx`, `certificate`, `connection-pool`,"
    " `delivery-queue`, `disk-space`, `memory`",
    "code": "three digits of an SMTP reply",
    "command": "verb of an SMTP command; `other`: none that is known",
    "end": "what ended a session: `quit`, `closed by client`, `lost`, `cut`, `TLS failure`, `idle`,"
    " `session too long`, `shutdown`, `not SMTP`, `refused`, or the reason of the refusal that closed it",
    "kind": "of a report: `failed`, `delayed`, `delivered`, `relayed`, `expanded`; `dropped`: it could not be"
    " delivered itself",
    "listener": "`mx`, `submission`, `submissions`",
    "operation": "name of a statement or transaction in the program, such as `messages.accept`",
    "reason": "why something was refused, a constant phrase such as `relaying denied`",
    "result": "of a notification: `sent`, `refused` (by the API's answer), `unavailable`, `dead` (given up);"
    " of a delivery: `delivered`, `deferred`, `failed`; of fetching a policy: `fetched`, `failed`",
    "source": "what the TLS of a next host was decided by: `override` (the table `relaymail.destination`),"
    " `relay`, `dane`, `mta-sts`, `requiretls`, `opportunistic`; `testing`: a policy in mode testing does not"
    " name the host",
    "state": f"of the outbox: {_listed(OUTBOX_STATES)} (given up; `due` is a part of `pending`);"
    f" of the queue: {_listed(QUEUE_STATES)} (by an operator; the three before it are parts of `pending`);"
    " of database connections: `used`, `idle`",
    "tls": "version, such as `TLSv1.3`; `none`: in clear",
}

_SECTIONS = {
    "smtp": "Taking mail",
    "store": "The database",
    "db": "The database",
    "notifications": "Telling the API",
    "outbox": "Telling the API",
    "queue": "Sending mail on",
    "delivery": "Sending mail on",
    "health": "The host",
    "tls": "The host",
    "reactor": "The host",
}
"""The section of a metric, by the first part of its name."""

_KINDS = {
    Kind.COUNTER: "counter",
    Kind.LEVEL: "up-down counter; gauge for Prometheus",
    Kind.GAUGE: "gauge",
    Kind.HISTOGRAM: "histogram",
}


def reference() -> str:
    """The page."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    descriptions = [instrument.description for instrument in Metrics().instruments]
    for section in dict.fromkeys(_SECTIONS.values()):
        yield f"## {section}"
        yield ""
        yield "| OpenTelemetry | Prometheus | | Unit | Labels | |"
        yield "|---|---|---|---|---|---|"
        for description in descriptions:
            if _SECTIONS[description.name.partition(".")[0]] == section:
                yield _row(description)
        yield ""
    yield "## Labels"
    yield ""
    yield "Labels are words of the program and never what a client chose, so that there are few of them. An"
    yield f"instrument keeps {MOST_SERIES} sets of labels at most, and counts the rest as `other`."
    yield ""
    yield "| | |"
    yield "|---|---|"
    for label, meaning in _LABELS.items():
        yield f"| `{label}` | {meaning} |"
    yield ""


def _row(description: Description) -> str:
    cells = (
        f"`{description.name}`",
        f"`{name_of(description)}`",
        _KINDS[description.kind],
        f"`{description.unit}`",
        _listed(description.labels),
        description.meaning,
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(reference(), end="")
