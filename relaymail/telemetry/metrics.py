"""What is counted, under the names that dashboards and alerts know."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from relaymail.telemetry.instruments import (
    Counter,
    Gauge,
    Histogram,
    Instrument,
    Kind,
    Labels,
    Observed,
    Reading,
)

MILLISECONDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000)
"""Buckets of the one histogram whose unit others expect to be milliseconds."""
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
LONG_SECONDS: Final = (0.01, 0.1, 1, 5, 10, 30, 60, 300, 600, 3600)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64)

OUTBOX_STATES: Final = ("pending", "due", "dead")
"""All that wait, those of them whose time has come, those given up."""
QUEUE_STATES: Final = ("pending", "due", "sending", "stalled", "held")
"""All that wait or are being sent, those of them whose time has come, those under a lease, those whose worker
has not been heard of, those an operator holds back."""


class Metrics:
    """The instruments; one object for the whole process, used on the reactor's thread.

    Labels are words of the program (a listener's name, a reply's code), never anything a client chose.
    """

    def __init__(self) -> None:
        self._make_smtp()
        self._make_store()
        self._make_outgoing()
        self._make_host()
        self.instruments: tuple[Instrument, ...] = tuple(
            value for value in vars(self).values() if isinstance(value, Instrument)
        )
        """All of them, in the order in which they are shown."""

    def collect(self) -> list[Reading]:
        """The numbers now; whoever gets them may use them on any thread."""
        return [instrument.read() for instrument in self.instruments]

    # Instruments

    def _make_smtp(self) -> None:
        listener = ("listener",)
        self.messages = Counter("smtp.messages.received", "{message}", "Messages made durable", listener)
        self.bytes = Counter("smtp.bytes.received", "By", "Bytes of messages made durable", listener)
        self.processing = Histogram(
            "smtp.message.processing.duration",
            "ms",
            "From the last byte of a message to its being durable",
            MILLISECONDS,
            listener,
        )
        self.connections = Counter(
            "smtp.connections.active", "{connection}", "Open SMTP connections", listener, Kind.LEVEL
        )
        self.sessions = Counter(
            "smtp.sessions",
            "{session}",
            "SMTP sessions that have ended, by TLS version (`none`: in clear) and by what ended them",
            ("listener", "tls", "end"),
        )
        self.session_seconds = Histogram(
            "smtp.session.duration", "s", "From connection to its end", LONG_SECONDS, listener
        )
        self.commands = Counter(
            "smtp.commands", "{command}", "Commands received; `other`: unknown ones", ("command",)
        )
        self.replies = Counter("smtp.replies", "{reply}", "Replies sent", ("code",))
        self.refusals = Counter("smtp.refusals", "{refusal}", "What was refused, by reason", ("reason",))
        self.unexpected = Counter(
            "smtp.errors.unexpected", "{error}", "Errors nobody foresaw; a command is answered 451 then"
        )
        self.attempts = Counter("smtp.auth.attempts", "{attempt}", "Logins tried", listener)
        self.failures = Counter("smtp.auth.failures", "{attempt}", "Logins refused", listener)

    def _make_store(self) -> None:
        self.batches = Histogram(
            "store.batch.size", "{message}", "Messages made durable by one transaction", SIZES
        )
        operation = ("operation",)
        self.calls = Histogram(
            "db.client.operation.duration",
            "s",
            "Time of a statement or transaction, waiting for a connection included",
            SECONDS,
            operation,
        )
        self.call_failures = Counter(
            "db.client.operation.failures",
            "{operation}",
            "Statements and transactions that failed",
            operation,
        )
        self.pool_waits = Histogram(
            "db.client.connection.wait_time",
            "s",
            "Time until a database connection was free, of those that had to wait for one",
            SECONDS,
        )
        self.pool = Observed(
            "db.client.connection.count", "{connection}", "Open database connections of the pool", ("state",)
        )
        self.pool_max = Observed(
            "db.client.connection.max", "{connection}", "Database connections the pool may have"
        )
        self.pool_pending = Observed(
            "db.client.connection.pending_requests", "{request}", "What waits for a database connection now"
        )

    def _make_outgoing(self) -> None:
        self.notifications = Counter("notifications", "{notification}", "Calls of the API", ("result",))
        self.outbox = Gauge("outbox.rows", "{row}", "Notifications of the API that wait or died", ("state",))
        self.outbox_age = Gauge("outbox.oldest.age", "s", "How long the most overdue notification has waited")
        self.queue = Gauge("queue.rows", "{row}", "Recipients that wait for delivery", ("state",))
        self.queue_age = Gauge("queue.oldest.age", "s", "How long the most overdue recipient has waited")
        self.deliveries = Counter(
            "delivery.recipients", "{recipient}", "Attempts to deliver to a recipient, by result", ("result",)
        )
        self.delivery_seconds = Histogram(
            "delivery.duration", "s", "From the first command for a message to its last reply", LONG_SECONDS
        )
        self.delivery_connections = Counter(
            "delivery.connections", "{connection}", "Connections to next hosts, by TLS version", ("tls",)
        )
        self.tls_policies = Counter(
            "delivery.tls_policies",
            "{policy}",
            "TLS policies worked out for next hosts, by where they come from",
            ("source",),
        )
        self.mta_sts_fetches = Counter(
            "delivery.mta_sts_fetches", "{fetch}", "MTA-STS policies fetched, or not to be had", ("result",)
        )
        self.reports = Counter(
            "delivery.reports", "{message}", "Delivery status notifications made or dropped", ("kind",)
        )

    def _make_host(self) -> None:
        check = ("check",)
        self.check_status = Gauge("health.check.status", "1", "0 Healthy, 1 Degraded, 2 Unhealthy", check)
        self.check_seconds = Gauge("health.check.duration", "s", "Time the last run of a check took", check)
        self.certificate = Observed(
            "tls.certificate.not_after.timestamp", "s", "When the certificate in use expires, in Unix time"
        )
        self.lag = Histogram(
            "reactor.lag", "s", "How late the reactor came to a timer, looked at four times a second", SECONDS
        )

    # What is told from where it happens: sessions

    def connection_opened(self, listener: str) -> None:
        """A client connected; ``listener`` is its name, such as ``mx``."""
        self.connections.add(1, (listener,))

    def connection_closed(self, listener: str) -> None:
        """A client, counted by :meth:`connection_opened`, is gone."""
        self.connections.add(-1, (listener,))

    def session_ended(self, listener: str, tls: str | None, end: str, seconds: float) -> None:
        """A session is over; ``tls`` is the version, ``end`` one of few constant words."""
        self.sessions.add(1, (listener, tls or "none", end))
        self.session_seconds.record(seconds, (listener,))

    def commanded(self, verb: str) -> None:
        """A command with this verb, or ``other``, came."""
        self.commands.add(1, (verb,))

    def replied(self, code: int) -> None:
        """An SMTP reply with this three-digit code was sent."""
        self.replies.add(1, (_CODES.get(code) or str(code),))

    def refused(self, reason: str) -> None:
        """Something was refused; ``reason`` is one of few constant phrases, never what a client sent."""
        self.refusals.add(1, (reason,))

    def unexpected_error(self) -> None:
        """Something nobody foresaw: a command is answered 451 then, and mail is tried again."""
        self.unexpected.add()

    def auth_attempted(self, listener: str) -> None:
        """A login was tried."""
        self.attempts.add(1, (listener,))

    def auth_failed(self, listener: str) -> None:
        """A login was refused."""
        self.failures.add(1, (listener,))

    # Messages

    def message_received(self, listener: str, size: int) -> None:
        """A message of ``size`` bytes was made durable."""
        where = (listener,)
        self.messages.add(1, where)
        self.bytes.add(size, where)

    def message_processed(self, listener: str, seconds: float) -> None:
        """A message was made durable ``seconds`` after its last byte."""
        self.processing.record(seconds * 1000, (listener,))

    def batch_stored(self, messages: int) -> None:
        """One transaction made so many messages durable."""
        self.batches.record(messages)

    # The database

    def database_called(self, operation: str, seconds: float, failure: BaseException | None) -> None:
        """A statement or transaction ended; ``operation`` is its name in the program."""
        labels = (operation,)
        self.calls.record(seconds, labels)
        if failure is not None:
            self.call_failures.add(1, labels)

    def pool_waited(self, seconds: float) -> None:
        """Somebody had to wait so long for a database connection."""
        self.pool_waits.record(seconds)

    def watch_pool(self, look: Callable[[], tuple[int, int, int, int]]) -> None:
        """From now on ``look`` is asked for connections in use, open, allowed, and calls that wait."""

        def states() -> Iterable[tuple[Labels, float]]:
            used, opened, _, _ = look()
            return (("used",), used), (("idle",), opened - used)

        self.pool.look = states
        self.pool_max.look = lambda: (((), look()[2]),)
        self.pool_pending.look = lambda: (((), look()[3]),)

    # Outbox, queue, deliveries

    def notified(self, result: str) -> None:
        """The API was called; ``result`` is one of few constant words, such as ``sent``."""
        self.notifications.add(1, (result,))

    def outbox_seen(self, *, pending: int, due: int, dead: int, oldest: float) -> None:
        """How many notifications wait, are due and died; for how many seconds the oldest has been due."""
        _set_rows(self.outbox, OUTBOX_STATES, pending, due, dead)
        self.outbox_age.set(oldest)

    def queue_seen(
        self, *, pending: int, due: int, sending: int, stalled: int, held: int, oldest: float
    ) -> None:
        """How many recipients are in each of :data:`QUEUE_STATES`, and the seconds the oldest is overdue."""
        _set_rows(self.queue, QUEUE_STATES, pending, due, sending, stalled, held)
        self.queue_age.set(oldest)

    def delivered(self, result: str, recipients: int = 1) -> None:
        """An attempt ended for so many recipients: ``delivered``, ``deferred`` or ``failed``."""
        self.deliveries.add(recipients, (result,))

    def delivery_took(self, seconds: float) -> None:
        """A transaction with a next host, from MAIL to its last reply, took so long."""
        self.delivery_seconds.record(seconds)

    def delivery_connected(self, tls: str | None) -> None:
        """A connection to a next host stands; ``tls`` is the version, ``None``: in clear."""
        self.delivery_connections.add(1, (tls or "none",))

    def tls_policy_found(self, source: str) -> None:
        """What a next host must offer was worked out; ``source`` is ``dane``, ``mta-sts``, … ``testing``."""
        self.tls_policies.add(1, (source,))

    def mta_sts_fetched(self, result: str) -> None:
        """An MTA-STS policy was ``fetched``, or that ``failed``."""
        self.mta_sts_fetches.add(1, (result,))

    def reported(self, kind: str) -> None:
        """A delivery status notification was made (``failed``, ``delayed``, …) or ``dropped``."""
        self.reports.add(1, (kind,))

    # The host

    def check_finished(self, check: str, status: int, seconds: float) -> None:
        """A health check ended; ``status``: 0 Healthy, 1 Degraded, 2 Unhealthy."""
        self.check_status.set(status, (check,))
        self.check_seconds.set(seconds, (check,))

    def watch_certificate(self, look: Callable[[], float | None]) -> None:
        """From now on ``look`` is asked for the Unix time at which the certificate in use expires."""

        def moment() -> Iterable[tuple[Labels, float]]:
            when = look()
            return () if when is None else (((), when),)

        self.certificate.look = moment

    def reactor_lagged(self, seconds: float) -> None:
        """The reactor came to a timer so late."""
        self.lag.record(seconds)


_CODES: Final = {code: str(code) for code in range(200, 600)}


def _set_rows(gauge: Gauge, states: tuple[str, ...], *counts: int) -> None:
    for state, count in zip(states, counts, strict=True):
        gauge.set(count, (state,))
