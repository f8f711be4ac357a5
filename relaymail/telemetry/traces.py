"""Traces of messages, recorded with OpenTelemetry. Needs the extra ``otel``.

The id of a message is the id of its trace. So nothing needs to be carried along where the way of a message
leads through the database: who finds its row knows its trace, and whether it is traced at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from relaymail.telemetry.spans import NOTIFY

SCOPE: Final = "relaymail"
ROOT: Final = "smtp.message"
"""The span around all others, from MAIL to the reply behind the message."""

_RANDOM: Final = 2**56
"""So many values the last bits of an id have by chance (W3C Trace Context level 2, 3.2.2.3)."""


class Traces:
    """Records the traces of a share of the messages.

    :param url: where spans are posted (OTLP over HTTP).
    :param ratio: the share, 0 to 1.
    :param timeout: seconds for an export.
    :param exported: told of each export whether it came through, on a thread of its own.
    """

    def __init__(
        self, url: str, ratio: float, resource: Resource, timeout: float, exported: Callable[[bool], None]
    ) -> None:
        self._ids = _Ids()
        self._bar = int(ratio * _RANDOM)
        # We decide what is recorded, before anything is made of it
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(_Exporter(exported, endpoint=url, timeout=timeout))
        )
        self._tracer = self._provider.get_tracer(SCOPE)

    def begin(self, message_id: UUID, listener: str, session_id: str) -> MessageSpans | None:
        """A transaction whose message will have this id begins; ``None``: it is not traced."""
        if not self._is_traced(message_id):
            return None
        self._ids.message = message_id
        try:
            root = self._tracer.start_span(
                ROOT,
                Context(),
                SpanKind.SERVER,
                {"message.id": str(message_id), "smtp.listener": listener, "smtp.session.id": session_id},
            )
        finally:
            self._ids.message = None
        return MessageSpans(self, message_id, root)

    def notification(self, message_id: UUID) -> RecordedSpan | None:
        """A notification of this message begins, in whatever process, or after however long."""
        return self.child(message_id, NOTIFY, SpanKind.CLIENT) if self._is_traced(message_id) else None

    def child(self, message_id: UUID, name: str, kind: SpanKind = SpanKind.INTERNAL) -> RecordedSpan:
        """Begin a part of a message's trace."""
        root = SpanContext(
            message_id.int, _root_span(message_id), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
        )
        context = set_span_in_context(NonRecordingSpan(root), Context())
        return RecordedSpan(self._tracer.start_span(name, context, kind, {"message.id": str(message_id)}))

    def shutdown(self) -> None:
        """Send what has not been sent, and end. Blocks."""
        self._provider.shutdown()

    def _is_traced(self, message_id: UUID) -> bool:
        return message_id.int % _RANDOM < self._bar


class _Exporter(OTLPSpanExporter):
    """Tells how it went."""

    def __init__(self, exported: Callable[[bool], None], **options: Any) -> None:
        super().__init__(**options)
        self._exported = exported

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self._exported(result is SpanExportResult.SUCCESS)
        return result


class RecordedSpan:
    """A span under way."""

    def __init__(self, span: OtelSpan) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """The header that carries the trace to another service (W3C Trace Context 3.2)."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def end(self, error: str | None = None) -> None:
        """It is over."""
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class MessageSpans:
    """The spans of one message."""

    def __init__(self, traces: Traces, message_id: UUID, root: OtelSpan) -> None:
        self._traces = traces
        self._root: RecordedSpan | None = RecordedSpan(root)
        self.message_id = message_id

    def span(self, name: str) -> RecordedSpan:
        """Begin a part of it."""
        return self._traces.child(self.message_id, name)

    def end(self, error: str | None = None) -> None:
        """The transaction is over."""
        root, self._root = self._root, None
        if root is not None:
            root.end(error)


class _Ids(RandomIdGenerator):
    """Ids by chance, but those of a message's first span are made of the message's id."""

    def __init__(self) -> None:
        self.message: UUID | None = None

    def generate_trace_id(self) -> int:
        return super().generate_trace_id() if self.message is None else self.message.int

    def generate_span_id(self) -> int:
        return super().generate_span_id() if self.message is None else _root_span(self.message)


def _root_span(message_id: UUID) -> int:
    """The id of the span around all others; never 0, since the variant of a UUID (RFC 9562 4.1) is in it."""
    return message_id.int % 2**64
