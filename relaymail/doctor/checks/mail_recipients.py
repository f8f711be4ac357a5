"""Check of stored mail: is every message for somebody."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, inside
from relaymail.store import diagnosis


async def look(context: Context) -> Finding:
    """Messages among the newest without an envelope recipient, or without their bytes."""
    lost = await context.ask(diagnosis.without_recipients)
    empty = await context.ask(diagnosis.without_bytes)
    if lost.count or empty.count:
        lines = [f"without a recipient: {one}" for one in lost.examples]
        lines += [f"without its bytes: {one}" for one in empty.examples]
        return failed(
            f"{lost.count} accepted messages have no recipient, {empty.count} no bytes",
            *lines,
            withoutRecipients=lost.count,
            withoutBytes=empty.count,
        )
    return passed("Every accepted message has its recipients and its bytes")


CHECK = Check(
    "check.mail.recipients",
    "Every accepted message has recipients and bytes",
    Severity.ERROR,
    ("database", "invariant"),
    Page(
        what=f"Looks through the newest {diagnosis.NEWEST} messages for one that has no envelope recipient, "
        "or whose bytes "
        "are not there.",
        why="A message is accepted with its recipients in one transaction: one without them was lost after "
        "it was "
        "acknowledged. It must not happen, and is a reason to look after backups and report it.",
        causes=(
            "Rows of schema `relaymail` were deleted by hand",
            "A partial restore: a dump of some tables only",
            "A damaged file system, or a PostgreSQL that ran with `fsync` off",
        ),
        fix=inside(
            "relaymail message show MESSAGE-ID",
            "relaymail message export MESSAGE-ID",
            comment="see what is left of the message; then restore the missing rows from a backup",
        ),
        verify="relaymail message list --limit 20",
        related=("check.mail.mailboxes", "check.database.version"),
    ),
    look,
    limit=25.0,
)
