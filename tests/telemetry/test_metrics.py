"""What is counted, what it is called, and what counting costs."""

from __future__ import annotations

import re
import time
import timeit

import pytest

from relaymail.telemetry import Metrics
from relaymail.telemetry.instruments import (
    MOST_SERIES,
    Buckets,
    Counter,
    Gauge,
    Histogram,
    Kind,
    Labels,
    Observed,
)

FIXED_NAMES = {
    "smtp.messages.received",
    "smtp.bytes.received",
    "smtp.auth.attempts",
    "smtp.auth.failures",
    "smtp.message.processing.duration",
    "smtp.connections.active",
}
"""Those that dashboards of other programs know."""


def points(metrics: Metrics) -> dict[tuple[str, Labels], float | Buckets]:
    return {
        (reading.description.name, labels): value
        for reading in metrics.collect()
        for labels, value in reading.points.items()
    }


def test_the_names_that_others_know_are_there() -> None:
    descriptions = {
        instrument.description.name: instrument.description for instrument in Metrics().instruments
    }
    assert descriptions.keys() >= FIXED_NAMES
    processing = descriptions["smtp.message.processing.duration"]
    assert (processing.kind, processing.unit) == (Kind.HISTOGRAM, "ms")
    assert descriptions["smtp.connections.active"].kind is Kind.LEVEL


def test_names_are_unique_dotted_and_explained() -> None:
    descriptions = [instrument.description for instrument in Metrics().instruments]
    names = [description.name for description in descriptions]
    assert len(names) == len(set(names)) > 30
    for description in descriptions:
        assert re.fullmatch(r"[a-z]+([._][a-z]+)*", description.name), description
        assert description.meaning[0].isupper() or description.meaning[0].isdigit(), description
        assert not description.meaning.endswith("."), description


def test_a_message_counts_with_its_bytes_and_its_time() -> None:
    metrics = Metrics()
    metrics.message_received("mx", 4096)
    metrics.message_received("mx", 1000)
    metrics.message_received("submission", 5)
    metrics.message_processed("mx", 0.25)
    found = points(metrics)
    assert found["smtp.messages.received", ("mx",)] == 2
    assert found["smtp.messages.received", ("submission",)] == 1
    assert found["smtp.bytes.received", ("mx",)] == 5096
    processing = found["smtp.message.processing.duration", ("mx",)]
    assert isinstance(processing, Buckets)
    assert (processing.total, sum(processing.counts)) == (250.0, 1)


def test_a_session_counts_while_it_is_open_and_when_it_has_ended() -> None:
    metrics = Metrics()
    metrics.connection_opened("mx")
    metrics.connection_opened("mx")
    metrics.connection_closed("mx")
    metrics.session_ended("mx", "TLSv1.3", "quit", 2.0)
    metrics.session_ended("mx", None, "lost", 2.0)
    found = points(metrics)
    assert found["smtp.connections.active", ("mx",)] == 1
    assert found["smtp.sessions", ("mx", "TLSv1.3", "quit")] == 1
    assert found["smtp.sessions", ("mx", "none", "lost")] == 1


def test_rows_that_wait_are_told_by_state() -> None:
    metrics = Metrics()
    metrics.outbox_seen(pending=7, due=3, dead=1, oldest=12.5)
    metrics.queue_seen(pending=70, due=30, sending=20, stalled=5, held=1, oldest=120)
    found = points(metrics)
    for state, count in (("pending", 7), ("due", 3), ("dead", 1)):
        assert found["outbox.rows", (state,)] == count
    for state, count in (("pending", 70), ("due", 30), ("sending", 20), ("stalled", 5), ("held", 1)):
        assert found["queue.rows", (state,)] == count
    assert found["outbox.oldest.age", ()] == 12.5
    assert found["queue.oldest.age", ()] == 120


def test_what_is_looked_at_only_when_somebody_collects() -> None:
    metrics = Metrics()
    assert ("tls.certificate.not_after.timestamp", ()) not in points(metrics)
    metrics.watch_pool(lambda: (3, 4, 8, 2))
    metrics.watch_certificate(lambda: 1_800_000_000.0)
    found = points(metrics)
    assert found["db.client.connection.count", ("used",)] == 3
    assert found["db.client.connection.count", ("idle",)] == 1
    assert found["db.client.connection.max", ()] == 8
    assert found["db.client.connection.pending_requests", ()] == 2
    assert found["tls.certificate.not_after.timestamp", ()] == 1_800_000_000
    metrics.watch_certificate(lambda: None)
    assert ("tls.certificate.not_after.timestamp", ()) not in points(metrics)


def test_everything_else_has_a_number_too() -> None:
    metrics = Metrics()
    metrics.commanded("EHLO")
    metrics.replied(250)
    metrics.replied(999)
    metrics.refused("relaying denied")
    metrics.unexpected_error()
    metrics.auth_attempted("submission")
    metrics.auth_failed("submission")
    metrics.batch_stored(5)
    metrics.database_called("outbox.claim", 0.002, None)
    metrics.database_called("outbox.claim", 0.002, ValueError())
    metrics.pool_waited(0.5)
    metrics.notified("sent")
    metrics.delivered("deferred", 3)
    metrics.delivery_took(1.5)
    metrics.delivery_connected(None)
    metrics.reported("failed")
    metrics.tls_policy_found("dane")
    metrics.mta_sts_fetched("fetched")
    metrics.check_finished("database", 2, 0.0085)
    metrics.reactor_lagged(0.003)
    found = points(metrics)
    counts = {
        ("smtp.commands", ("EHLO",)): 1,
        ("smtp.replies", ("250",)): 1,
        ("smtp.replies", ("999",)): 1,
        ("smtp.refusals", ("relaying denied",)): 1,
        ("smtp.errors.unexpected", ()): 1,
        ("smtp.auth.attempts", ("submission",)): 1,
        ("smtp.auth.failures", ("submission",)): 1,
        ("db.client.operation.failures", ("outbox.claim",)): 1,
        ("notifications", ("sent",)): 1,
        ("delivery.recipients", ("deferred",)): 3,
        ("delivery.connections", ("none",)): 1,
        ("delivery.reports", ("failed",)): 1,
        ("delivery.tls_policies", ("dane",)): 1,
        ("delivery.mta_sts_fetches", ("fetched",)): 1,
        ("health.check.status", ("database",)): 2,
        ("health.check.duration", ("database",)): 0.0085,
    }
    assert {key: found[key] for key in counts} == counts
    for name, total in (
        ("store.batch.size", 5),
        ("db.client.operation.duration", 0.004),
        ("db.client.connection.wait_time", 0.5),
        ("delivery.duration", 1.5),
        ("reactor.lag", 0.003),
    ):
        buckets = found[name, ("outbox.claim",) if "operation" in name else ()]
        assert isinstance(buckets, Buckets)
        assert buckets.total == pytest.approx(total)


def test_a_value_on_a_bound_belongs_below_it() -> None:
    histogram = Histogram("x", "s", "X", (1, 2, 5))
    for value in (0, 1, 1.5, 2, 5, 5.01, 100):
        histogram.record(value)
    [buckets] = histogram.read().points.values()
    assert isinstance(buckets, Buckets)
    assert buckets.counts == (2, 2, 1, 2)


@pytest.mark.parametrize("new", [Counter, Gauge])
def test_more_labels_than_are_kept_are_others(new: type[Counter] | type[Gauge]) -> None:
    instrument = new("x", "1", "X", ("a", "b"))
    for n in range(MOST_SERIES + 50):
        if isinstance(instrument, Counter):
            instrument.add(1, (str(n), "b"))
        else:
            instrument.set(1, (str(n), "b"))
    read = instrument.read().points
    assert len(read) == MOST_SERIES + 1
    assert read["other", "other"] == (50 if isinstance(instrument, Counter) else 1)
    assert read["0", "b"] == 1


def test_a_histogram_is_bounded_as_well() -> None:
    histogram = Histogram("x", "s", "X", (1,), ("a",))
    for n in range(MOST_SERIES + 50):
        histogram.record(1, (str(n),))
    read = histogram.read().points
    assert len(read) == MOST_SERIES + 1
    others = read["other",]
    assert isinstance(others, Buckets)
    assert others.counts == (50, 0)


def test_what_was_read_does_not_change_any_more() -> None:
    counter, histogram = Counter("x", "1", "X"), Histogram("y", "s", "Y", (1,))
    histogram.record(1)
    before = counter.read(), histogram.read()
    counter.add()
    histogram.record(1)
    assert before[0].points == {(): 0}
    assert before[1].points == {(): Buckets((1, 0), 1)}
    assert counter.total() == 1


def test_nothing_to_look_at_is_no_number() -> None:
    assert Observed("x", "1", "X").read().points == {}
    assert Gauge("x", "1", "X").read().points == {}
    assert Gauge("x", "1", "X").get() is None


def test_counting_costs_less_than_a_few_microseconds() -> None:
    metrics = Metrics()

    def all_of_a_message() -> None:
        for verb in ("MAIL", "RCPT", "DATA", "RSET"):
            metrics.commanded(verb)
            metrics.replied(250)
        metrics.message_received("mx", 4096)
        metrics.message_processed("mx", 0.01)

    runs = timeit.repeat(all_of_a_message, number=100, repeat=100, timer=time.thread_time)
    assert min(runs) / 100 < 18e-6, "2 % of the time that a message takes"
