"""Check of postmaster: does somebody read it."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, setting
from relaymail.store import diagnosis
from relaymail.store.database import Database


async def look(context: Context) -> Finding:
    """``Smtp:Postmaster``, or a user who has ``postmaster@`` each hosted domain."""
    fallback = context.settings.smtp.postmaster
    domains = context.domains

    async def owned(database: Database) -> tuple[bool, list[str]]:
        return (
            fallback is not None and await diagnosis.has_owner(database, fallback),
            [one for one in domains if not await diagnosis.has_owner(database, f"postmaster@{one}")],
        )

    has_fallback, orphaned = await context.ask(owned)
    if has_fallback:
        return passed(f"{fallback} gets the mail for postmaster")
    if fallback is not None:
        why = f"Smtp:Postmaster is {fallback}, an address that no user has"
    else:
        why = "Smtp:Postmaster is not set"
    if not orphaned:
        return passed("A user has postmaster@ each hosted domain")
    return failed(
        "Nobody reads the mail for postmaster",
        why,
        *[f"no user has postmaster@{domain}" for domain in orphaned],
        domains=orphaned,
    )


CHECK = Check(
    "check.accounts.postmaster",
    "Somebody reads postmaster's mail",
    Severity.WARN,
    ("accounts", "invariant", "mx"),
    Page(
        what="Looks whether a user has the address `Smtp:Postmaster`, or `postmaster@` each hosted domain.",
        why="Every host takes mail for `postmaster` (RFC 5321 4.5.1): others report there that mail of yours "
        "is spam or "
        "goes nowhere. Without an owner it is stored and seen by nobody.",
        causes=(
            "`Smtp:Postmaster` was never set",
            "The user who had the address was removed, or it is not verified",
        ),
        fix=setting("Smtp__Postmaster=anna@example.com", comment="an address of a user"),
        verify="relaymail message list --limit 5",
        related=("check.accounts.addresses", "check.dns.mx"),
    ),
    look,
    limit=25.0,
)
