"""Check of the accounts: does each address belong to one user."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, inside
from relaymail.store import diagnosis


async def look(context: Context) -> Finding:
    """Addresses that two users have, in any case."""
    shared = await context.ask(diagnosis.shared_addresses)
    if shared.count:
        noun = "address belongs" if shared.count == 1 else "addresses belong"
        return failed(f"{shared.count} {noun} to more than one user", *shared.examples, count=shared.count)
    return passed("Each address belongs to one user")


CHECK = Check(
    "check.accounts.addresses",
    "Each address belongs to one user",
    Severity.WARN,
    ("accounts", "invariant"),
    Page(
        what="Looks for addresses (of users, and verified additional ones) that more than one user has, in "
        "any case.",
        why="Mail for such an address goes to the oldest of its users; the others wait for theirs.",
        causes=(
            "Two users were made by two identity providers with the same e-mail address",
            "An address was verified by a second user through the API",
        ),
        fix=inside(
            "relaymail user list",
            "relaymail user address remove USER ADDRESS",
            comment="take it away from whom it does not belong to",
        ),
        verify="relaymail user list",
        related=("check.accounts.postmaster", "check.mail.mailboxes"),
    ),
    look,
    limit=25.0,
)
