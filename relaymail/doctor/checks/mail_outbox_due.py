"""Check of the outbox: is it worked on."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, inside
from relaymail.store import diagnosis

AGE = 900.0
"""Seconds: more than a host waits that found the API away."""


async def look(context: Context) -> Finding:
    """Rows that have been due for long and are in nobody's hands."""
    found = await context.ask(lambda database: diagnosis.outbox_due(database, AGE))
    if found.count:
        return failed(
            f"{found.count} notifications have been due for more than {AGE / 60:.0f} minutes",
            f"the oldest for {found.seconds / 60:.0f} minutes",
            count=found.count,
            oldestSeconds=round(found.seconds),
        )
    return passed("Notifications do not wait longer than they should")


CHECK = Check(
    "check.mail.outbox-due",
    "Notifications are sent in time",
    Severity.WARN,
    ("api", "invariant"),
    Page(
        what=f"Counts the notifications that have been due for more than {AGE / 60:.0f} minutes.",
        why="Users do not see new mail until they look for it.",
        causes=(
            "No host runs on this database",
            "The API does not answer, or is too slow for the mail that comes",
        ),
        fix=Remedy(
            "docker compose up -d relaymail",
            "systemctl restart relaymail",
            "kubectl rollout restart deployment/relaymail",
        )
        + inside("relaymail outbox retry --all-pending"),
        verify="relaymail outbox list --state pending",
        related=("check.mail.outbox-leases", "check.api.reachable", "check.api.key"),
    ),
    look,
    limit=25.0,
)
