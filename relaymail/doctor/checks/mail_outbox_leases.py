"""Check of the outbox: are there claims that nobody has ended."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store import diagnosis

AGE = 600.0
"""Seconds behind the end of a lease; a host claims it again within one."""


async def look(context: Context) -> Finding:
    """Leases that are over and were not claimed again."""
    found = await context.ask(lambda database: diagnosis.outbox_leases(database, AGE))
    if found.count:
        return failed(
            f"{found.count} notifications were claimed by a host that is gone, and by no other since",
            f"the oldest claim ended {found.seconds / 60:.0f} minutes ago",
            count=found.count,
            oldestSeconds=round(found.seconds),
        )
    return passed("No notification is left in a claim that has ended")


CHECK = Check(
    "check.mail.outbox-leases",
    "No notification is left in an ended claim",
    Severity.WARN,
    ("api", "invariant"),
    Page(
        what=f"Counts the notifications whose claim ended more than {AGE / 60:.0f} minutes ago and that no "
        "host has "
        "claimed since.",
        why="A claim of a host that was killed ends by itself, and a running host takes the notification "
        "over. If none "
        "does, no host is working on the outbox.",
        causes=(
            "No host runs on this database",
            "The hosts hold the outbox back, since the API does not answer",
            "The clock of the database was set",
        ),
        fix=Remedy(
            "docker compose up -d relaymail",
            "systemctl restart relaymail",
            "kubectl rollout restart deployment/relaymail",
        ),
        verify="relaymail outbox list --state pending",
        related=("check.mail.outbox-due", "check.api.reachable", "check.host.health"),
    ),
    look,
    limit=25.0,
)
