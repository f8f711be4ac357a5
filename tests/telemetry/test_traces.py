"""The traces of messages: which are recorded, and that all parts find together by the message's id alone."""

from __future__ import annotations

from uuid import UUID

from relaymail.message.ids import uuid7
from relaymail.telemetry import Tracer, configure
from relaymail.telemetry.spans import MAIL_FROM, NOTIFY, SAVE
from tests.conftest import reactor
from tests.telemetry.collector import Collector, attributes_of


async def test_all_parts_of_a_message_are_one_trace(collector: Collector) -> None:
    telemetry = configure(collector.url, trace_ratio=1)
    elsewhere = configure(collector.url, trace_ratio=1)
    assert telemetry.tracer is not None
    assert elsewhere.tracer is not None
    message_id = uuid7()
    trace = telemetry.tracer.begin(message_id, "mx", "SESSION")
    assert trace is not None
    assert trace.message_id == message_id
    trace.span(MAIL_FROM).end()
    trace.span(SAVE).end("not stored")
    trace.end()
    trace.end("a second end is none")
    notification = elsewhere.tracer.notification(message_id)
    assert notification is not None
    header = notification.traceparent
    notification.end()
    await telemetry.stop(reactor)
    await elsewhere.stop(reactor)
    spans = collector.spans()
    assert sorted(spans) == [
        "smtp.filter.mail_from",
        "smtp.message",
        "smtp.message.save",
        "smtp.notify.users",
    ]
    root = spans["smtp.message"]
    assert root.parent_span_id == b""
    assert root.status.code == 0
    assert attributes_of(root) == (
        ("message.id", str(message_id)),
        ("smtp.listener", "mx"),
        ("smtp.session.id", "SESSION"),
    )
    for name, span in spans.items():
        assert span.trace_id == message_id.bytes
        assert ("message.id", str(message_id)) in attributes_of(span)
        if span is not root:
            assert span.parent_span_id == root.span_id, name
    assert (spans[SAVE].status.code, spans[SAVE].status.message) == (2, "not stored")
    assert header == f"00-{message_id.hex}-{spans[NOTIFY].span_id.hex()}-01"


async def test_the_share_that_is_asked_for_is_traced(collector: Collector) -> None:
    telemetry = configure(collector.url, trace_ratio=0.25)
    assert telemetry.tracer is not None
    ids = [UUID(int=(7 << 76) | (2 << 62) | n * 2**46) for n in range(1024)]
    traced = [message_id for message_id in ids if is_traced(telemetry.tracer, message_id)]
    assert len(traced) == 256
    again = configure(collector.url, trace_ratio=0.25).tracer
    assert again is not None
    assert [message_id for message_id in ids if again.notification(message_id) is not None] == traced
    await telemetry.stop(reactor)


def is_traced(tracer: Tracer, message_id: UUID) -> bool:
    trace = tracer.begin(message_id, "mx", "SESSION")
    if trace is not None:
        trace.end()
    return trace is not None


async def test_nothing_is_traced_unless_it_is_wanted(collector: Collector) -> None:
    telemetry = configure(collector.url, trace_ratio=0)
    assert telemetry.tracer is None
    await telemetry.stop(reactor)
    assert collector.paths == [b"/v1/metrics"]
