"""Check of the queue: are there claims that nobody has ended."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store import diagnosis

AGE = 600.0
"""Seconds behind the end of a lease, as the health check ``delivery-queue`` has it."""


async def look(context: Context) -> Finding:
    """Leases that are over and were not claimed again."""
    found = await context.ask(lambda database: diagnosis.queue_leases(database, AGE))
    if found.count:
        return failed(
            f"{found.count} deliveries were claimed by a host that is gone, and by no other since",
            f"the oldest claim ended {found.seconds / 60:.0f} minutes ago",
            count=found.count,
            oldestSeconds=round(found.seconds),
        )
    return passed("No delivery is left in a claim that has ended")


CHECK = Check(
    "check.queue.leases",
    "No delivery is left in an ended claim",
    Severity.ERROR,
    ("outbound", "queue", "invariant"),
    Page(
        what=f"Counts the recipients in the queue whose claim ended more than {AGE / 60:.0f} minutes ago and "
        "that no host "
        "has claimed since.",
        why="A claim of a host that was killed ends by itself, and the next host takes over. If none does, "
        "mail that was "
        "accepted is not sent.",
        causes=(
            "No host runs on this database with `OutboundMail:Enabled`",
            "A host is alive, but its deliveries hang",
            "The clock of the database was set",
        ),
        fix=Remedy(
            "docker compose restart relaymail",
            "systemctl restart relaymail",
            "kubectl rollout restart deployment/relaymail",
        ),
        verify="relaymail queue list",
        related=("check.queue.due", "check.host.health"),
    ),
    look,
    limit=25.0,
)
