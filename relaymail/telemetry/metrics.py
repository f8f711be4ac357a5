"""What is counted, under the names that dashboards and alerts know."""

from __future__ import annotations

from opentelemetry.metrics import Meter

METER = "relaymail"


class Metrics:
    """The instruments; one object for the whole process. Safe from any thread.

    Without a meter nothing is recorded, and a call costs no more than the call itself.

    :param meter: of a configured provider; ``None``: nobody collects.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self._on = meter is not None
        if meter is None:
            return
        self._messages = meter.create_counter("smtp.messages.received", "{message}", "Messages made durable")
        self._bytes = meter.create_counter("smtp.bytes.received", "By", "Bytes of messages made durable")
        self._attempts = meter.create_counter("smtp.auth.attempts", "{attempt}", "Logins tried")
        self._failures = meter.create_counter("smtp.auth.failures", "{attempt}", "Logins refused")
        self._processing = meter.create_histogram(
            "smtp.message.processing.duration", "ms", "From the end of a message to its reply"
        )
        self._connections = meter.create_up_down_counter(
            "smtp.connections.active", "{connection}", "Open SMTP connections"
        )
        self._replies = meter.create_counter("smtp.replies", "{reply}", "Replies sent, by code")
        self._refusals = meter.create_counter("smtp.refusals", "{refusal}", "What was refused, by reason")
        self._unexpected = meter.create_counter("smtp.errors.unexpected", "{error}", "Errors nobody foresaw")
        self._notifications = meter.create_counter(
            "notifications", "{notification}", "Calls of the API, by result"
        )
        self._check_status = meter.create_gauge(
            "health.check.status", "1", "0 Healthy, 1 Degraded, 2 Unhealthy"
        )
        self._check_duration = meter.create_histogram("health.check.duration", "ms", "Time a check took")

    def message_received(self, listener: str, size: int) -> None:
        """A message of ``size`` bytes was made durable; ``listener`` is its name, such as ``mx``."""
        if self._on:
            where = {"listener": listener}
            self._messages.add(1, where)
            self._bytes.add(size, where)

    def message_processed(self, listener: str, seconds: float) -> None:
        """A message was answered ``seconds`` after its last byte, whatever the answer was."""
        if self._on:
            self._processing.record(seconds * 1000, {"listener": listener})

    def auth_attempted(self, listener: str) -> None:
        """A login was tried."""
        if self._on:
            self._attempts.add(1, {"listener": listener})

    def auth_failed(self, listener: str) -> None:
        """A login was refused."""
        if self._on:
            self._failures.add(1, {"listener": listener})

    def connection_opened(self, listener: str) -> None:
        """A client connected."""
        if self._on:
            self._connections.add(1, {"listener": listener})

    def connection_closed(self, listener: str) -> None:
        """A client, counted by :meth:`connection_opened`, is gone."""
        if self._on:
            self._connections.add(-1, {"listener": listener})

    def replied(self, code: int) -> None:
        """An SMTP reply with this three-digit code was sent."""
        if self._on:
            self._replies.add(1, {"code": code})

    def refused(self, reason: str) -> None:
        """Something was refused; ``reason`` is one of few constant words, never what a client sent."""
        if self._on:
            self._refusals.add(1, {"reason": reason})

    def unexpected_error(self) -> None:
        """Something was answered 451 because of an error nobody foresaw."""
        if self._on:
            self._unexpected.add(1)

    def notified(self, result: str) -> None:
        """The API was called; ``result`` is one of few constant words, such as ``sent``."""
        if self._on:
            self._notifications.add(1, {"result": result})

    def check_finished(self, check: str, status: int, seconds: float) -> None:
        """A health check ended; ``status``: 0 Healthy, 1 Degraded, 2 Unhealthy."""
        if self._on:
            name = {"check": check}
            self._check_status.set(status, name)
            self._check_duration.record(seconds * 1000, name)
