"""Check of the queue of mail for other hosts: is it worked, and does it get shorter."""

from __future__ import annotations

from relaymail.health.result import HealthCheck, Result, Status
from relaymail.store.database import Database
from relaymail.store.errors import DatabaseError
from relaymail.store.queue_counts import queue_counts

QUEUED_DEGRADED_ABOVE = 100


def delivery_queue_check(database: Database) -> HealthCheck:
    """Unhealthy where leases ended ten minutes ago and nobody took over; Degraded where more than
    :data:`QUEUED_DEGRADED_ABOVE` recipients wait, or any was tried three times."""

    async def run() -> Result:
        try:
            counts = await queue_counts(database)
        except DatabaseError:
            return Result(Status.UNHEALTHY, "The delivery queue cannot be read")
        status, text = Status.HEALTHY, f"{counts.queued} recipients in the delivery queue"
        if counts.stalled:
            status, text = Status.UNHEALTHY, f"{counts.stalled} deliveries have stalled"
        elif counts.tried or counts.queued > QUEUED_DEGRADED_ABOVE:
            status = Status.DEGRADED
            text += f", {counts.tried} of them tried three times or more"
        return Result(
            status,
            text,
            {
                "queuedCount": counts.queued,
                "stalledCount": counts.stalled,
                "highRetryCount": counts.tried,
                "heldCount": counts.held,
                "sendingCount": counts.sending,
                "blockedDestinations": counts.blocked,
                "oldestSeconds": round(counts.oldest_seconds),
            },
        )

    return HealthCheck("delivery-queue", ("delivery",), run)
