"""The names of the metrics that queries and rules use, and those that there are."""

from __future__ import annotations

import re

from relaymail.telemetry import Metrics
from relaymail.telemetry.instruments import Kind
from relaymail.telemetry.prometheus import name_of

FROM_ELSEWHERE = frozenset(
    {
        "up",
        "ALERTS",
        "relaymail_build_info",
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
    }
)
"""Of Prometheus itself, and of the page that has ours."""

_NAME = re.compile(r"\b(?:relaymail_\w+|process_\w+|up|ALERTS)\b(?=[{\[) ]|$)")
_LABELS = re.compile(r"\{[^}]*\}")


def named(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    return set(_NAME.findall(_LABELS.sub("{", expression)))


def known() -> set[str]:
    """Every metric there can be, with what a histogram adds to its name."""
    names = set(FROM_ELSEWHERE)
    for instrument in Metrics().instruments:
        name = name_of(instrument.description)
        if instrument.description.kind is Kind.HISTOGRAM:
            names |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(name)
    return names
