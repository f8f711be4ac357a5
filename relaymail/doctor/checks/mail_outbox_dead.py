"""Check of the outbox: were notifications given up."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, inside
from relaymail.store import diagnosis


async def look(context: Context) -> Finding:
    """Rows in state ``dead``."""
    dead = await context.ask(diagnosis.outbox_dead)
    if dead.count:
        noun = "notification was" if dead.count == 1 else "notifications were"
        return failed(f"{dead.count} {noun} given up", *dead.examples, count=dead.count)
    return passed("No notification was given up")


CHECK = Check(
    "check.mail.outbox-dead",
    "No notification was given up",
    Severity.WARN,
    ("api", "invariant"),
    Page(
        what="Counts the notifications of new mail in state `dead`.",
        why="The mail is stored and will be seen; but the API was not told, so no browser or mail program "
        "was.",
        causes=(
            "The API was away or refused the key for 72 hours",
            "The API does not take this notification (4xx): the reason is shown",
        ),
        fix=inside("relaymail outbox list --state dead", "relaymail outbox retry --all-dead"),
        verify="relaymail outbox list --state dead",
        related=("check.api.reachable", "check.api.key"),
    ),
    look,
    limit=25.0,
)
