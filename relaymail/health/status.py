"""Gathers what the status page shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from relaymail.health.activity import Activity
from relaymail.health.monitor import HealthMonitor
from relaymail.health.page import Facts, Waiting
from relaymail.telemetry import Metrics
from relaymail.telemetry.instruments import Buckets, Gauge

DAY = 86400


class StatusDesk:
    """Knows where everything is that the status page shows.

    :param server: name of the mail server.
    :param clock: a reactor, or a fake one.
    :param now: the time, in Unix seconds.
    """

    def __init__(
        self,
        monitor: HealthMonitor,
        activity: Activity,
        metrics: Metrics,
        *,
        server: str,
        version: str,
        clock: Any,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._activity = activity
        self._metrics = metrics
        self._server = server
        self._version = version
        self._clock = clock
        self._now = now
        self._began = clock.seconds()

    async def facts(self) -> Facts:
        """What is known now. Waits for the checks only where none has run yet."""
        report, age = await self._monitor.recent()
        metrics, messages = self._metrics, self._activity.messages
        return Facts(
            server=self._server,
            version=self._version,
            uptime=self._clock.seconds() - self._began,
            age=age,
            report=report,
            history={name: history.steps() for name, history in self._monitor.history.items()},
            rate=messages.per_minute(),
            rates=messages.steps(),
            sessions=round(metrics.connections.total()),
            outbox=_waiting(metrics.outbox, metrics.outbox_age),
            queue=_waiting(metrics.queue, metrics.queue_age),
            certificate=self._certificate(),
        )

    def _certificate(self) -> float | None:
        expires = self._metrics.certificate.read().points.get(())
        return None if expires is None or isinstance(expires, Buckets) else (expires - self._now()) / DAY


def _waiting(rows: Gauge, age: Gauge) -> Waiting | None:
    pending, due, dead = (rows.get((state,)) for state in ("pending", "due", "dead"))
    if pending is None:
        return None
    return Waiting(round(pending), round(due or 0), round(dead or 0), age.get() or 0.0)
