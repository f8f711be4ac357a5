"""Check of the queue: which destinations are not reached."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, inside
from relaymail.store import diagnosis

AGE = 3600.0
"""Seconds a destination may be away before it is worth telling."""
MANY = 5
"""Destinations away at one time, from which on it is likely to be us."""


async def look(context: Context) -> Finding:
    """Destinations that have been left alone for long."""
    found = await context.ask(lambda database: diagnosis.blocked(database, AGE))
    if not found.count:
        return passed("No destination is away for long")
    noun = "destination has" if found.count == 1 else "destinations have"
    severity = Severity.WARN if found.count >= MANY else None
    return failed(
        f"{found.count} {noun} not been reached for more than an hour",
        *found.examples,
        severity=severity,
        count=found.count,
    )


CHECK = Check(
    "check.queue.blocked",
    "Destinations can be reached",
    Severity.INFO,
    ("outbound", "queue"),
    Page(
        what=f"Lists the destinations none of whose hosts could be connected to for more than an hour. "
        f"{MANY} and more "
        "are a warning: then it is rather this side.",
        why="Mail for them waits, is tried again for five days, and then goes back to its senders.",
        causes=(
            "The other side is down; then nothing is to be done",
            "The address of this host is on a block list, and connections are refused",
            "Outgoing port 25 is blocked",
        ),
        fix=inside("relaymail queue list"),
        verify="nc -vw 8 mx.example.org 25 </dev/null",
        related=("check.outbound.port25", "check.queue.due", "check.dns.ptr"),
    ),
    look,
    limit=25.0,
)
