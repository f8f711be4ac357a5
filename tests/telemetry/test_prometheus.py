"""The page for Prometheus: its names, its units, and that its own parser reads it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from relaymail.telemetry import Metrics
from relaymail.telemetry.prometheus import exposition, name_of

OPEN = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"

Parse = Callable[[str], Iterable[Metric]]


def filled() -> Metrics:
    metrics = Metrics()
    metrics.message_received("mx", 4096)
    metrics.message_processed("mx", 0.25)
    metrics.message_processed("mx", 100)
    metrics.connection_opened("mx")
    metrics.refused('a "reason"\\ with\nall sorts')
    metrics.check_finished("database", 2, 0.0085)
    metrics.watch_pool(lambda: (1, 2, 4, 0))
    return metrics


@pytest.mark.parametrize(
    ("accept", "parse"), [("", parse_text), ("text/plain", parse_text), (OPEN, parse_open)]
)
def test_the_page_is_read_by_prometheus_own_parser(accept: str, parse: Parse) -> None:
    page, content_type = exposition(filled().collect(), "1.2.3", accept)
    assert content_type.startswith("application/openmetrics-text" if accept == OPEN else "text/plain")
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(page.decode())
        for sample in family.samples
    }
    mx = ("listener", "mx")
    assert samples["relaymail_smtp_messages_received_total", (mx,)] == 1
    assert samples["relaymail_smtp_bytes_received_total", (mx,)] == 4096
    assert samples["relaymail_smtp_connections_active", (mx,)] == 1
    assert samples["relaymail_health_check_status", (("check", "database"),)] == 2
    assert samples["relaymail_health_check_duration_seconds", (("check", "database"),)] == 0.0085
    assert samples["relaymail_db_client_connections", (("state", "used"),)] == 1
    assert samples["relaymail_smtp_refusals_total", (("reason", 'a "reason"\\ with\nall sorts'),)] == 1
    assert samples["relaymail_build_info", (("version", "1.2.3"),)] == 1
    assert samples["process_open_fds", ()] > 2
    duration = "relaymail_smtp_message_processing_duration_seconds"
    assert samples[f"{duration}_sum", (mx,)] == pytest.approx(100.25)
    assert samples[f"{duration}_count", (mx,)] == 2
    buckets = [
        (math.inf if dict(labels)["le"] == "+Inf" else float(dict(labels)["le"]), value)
        for (name, labels), value in samples.items()
        if name == f"{duration}_bucket"
    ]
    assert dict(buckets)[0.2] == 0
    assert dict(buckets)[0.5] == 1
    assert dict(buckets)[30.0] == 1
    assert dict(buckets)[math.inf] == 2
    assert [value for _, value in sorted(buckets)] == sorted(value for _, value in buckets)


def test_names_are_as_prometheus_wants_them() -> None:
    names = {name_of(i.description): i.description for i in Metrics().instruments}
    assert len(names) == len(Metrics().instruments)
    for name, description in names.items():
        assert re.fullmatch(r"relaymail_[a-z]+(_[a-z]+)*", name), name
        assert name.endswith("_total") == (description.kind.value == "counter"), name
        assert not re.search(r"_(count|sum|bucket|ms|milliseconds)$", name), name
        if description.unit in ("s", "ms"):
            assert "_seconds" in name, name
