"""Check of the queue: is mail sent when it is due."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, inside
from relaymail.store import diagnosis

AGE = 900.0
"""Seconds that a recipient may be due before somebody should have tried."""
OWED_AGE = 3600.0
"""Seconds that a report to a sender may be owed."""


async def look(context: Context) -> Finding:
    """Rows that are due and not held up by an unreachable destination, and reports not made."""
    due = await context.ask(lambda database: diagnosis.queue_due(database, AGE))
    owed = await context.ask(lambda database: diagnosis.queue_owed(database, OWED_AGE))
    lines: list[str] = []
    if due.count:
        lines.append(
            f"{due.count} recipients have been due for more than {AGE / 60:.0f} minutes, the oldest for "
            f"{due.seconds / 60:.0f}"
        )
    if owed.count:
        lines.append(f"{owed.count} senders wait for a report, the first for {owed.seconds / 3600:.1f} hours")
    if not lines:
        return passed("Mail in the queue is sent when it is due")
    summary = "Mail in the queue is not sent" if due.count else "Reports to senders are not made"
    if due.count and not context.outbound:
        lines.append("this host sends none: OutboundMail:Enabled is false, or it has no full domain name")
    return failed(summary, *lines, due=due.count, owed=owed.count)


CHECK = Check(
    "check.queue.due",
    "Queued mail is sent when it is due",
    Severity.ERROR,
    ("outbound", "queue", "invariant"),
    Page(
        what=f"Counts the recipients that have been due for more than {AGE / 60:.0f} minutes though their "
        "destination is "
        f"not left alone, and the reports to senders that have been owed for more than {OWED_AGE / 60:.0f} "
        "minutes.",
        why="Mail that was accepted for other hosts is not on its way, and its senders do not know.",
        causes=(
            "No host runs on this database with `OutboundMail:Enabled`",
            "Outbound mail was switched off with mail in the queue",
            "More mail is queued than `OutboundMail:MaxConcurrency` deliveries can send",
        ),
        fix=Remedy(
            "docker compose up -d relaymail",
            "systemctl restart relaymail",
            "kubectl rollout restart deployment/relaymail",
        )
        + inside("relaymail queue list"),
        verify="relaymail queue list",
        related=("check.queue.leases", "check.queue.blocked", "check.outbound.port25"),
    ),
    look,
    limit=25.0,
)
