"""Check of the tables: those of schema relaymail, and the shared ones."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, inside
from relaymail.store import schema

NEWER_COLUMNS = frozenset(
    {
        "SmtpApiKeys.KeyPrefix",
        "UserEmailAddresses.VerificationToken",
        "UserEmailAddresses.VerificationTokenExpiresAt",
    }
)
"""Columns that an older API does not have yet, and without which the host does."""


async def look(context: Context) -> Finding:
    """What is applied, what is pending, and what the API has made."""
    found = await context.ask(schema.status)
    if found.version > found.latest:
        return failed(
            f"The database has migration {found.version} of schema relaymail, this version knows "
            f"{found.latest}",
            "A newer relaymail has used it: this one refuses it. Upgrade this one, or restore a backup.",
        )
    problems: list[str] = []
    if found.pending:
        problems.append(f"migrations to be applied to schema relaymail: {', '.join(found.pending)}")
    if found.public == "missing":
        problems.append("the shared tables (Users, Emails, …) do not exist: the API has not made them yet")
    columns = [column for column in found.missing_columns if column not in NEWER_COLUMNS]
    if found.public == "partial" and (columns or not found.missing_columns):
        lacking = ", ".join(columns) if columns else "whole tables"
        problems.append(f"the shared tables lack {lacking}, or have another type there")
    if problems:
        only_pending = len(problems) == 1 and bool(found.pending) and found.version > 0
        return failed(
            "The database lacks tables",
            *problems,
            severity=Severity.WARN if only_pending else None,
            pending=list(found.pending),
            public=found.public,
        )
    return passed(f"Schema relaymail is at migration {found.version}, the shared tables are there")


CHECK = Check(
    "check.database.migrations",
    "Database has the tables of this version",
    Severity.ERROR,
    ("database",),
    Page(
        what="Compares schema `relaymail` with the migrations of this version, and the shared tables of "
        "schema `public` "
        "with what the host needs of them.",
        why="Until the tables are there the host greets with `421 4.3.2`. A database that a newer version "
        "has used is "
        "refused. Pending migrations alone are a warning: the host applies them at its next start.",
        causes=(
            "The host has not been started on this database yet",
            "The API, which makes the shared tables, has not been started, or its migrations fail",
            "A database without an API was not prepared with `relaymail db upgrade --standalone`",
            "The program was set back to an older version",
        ),
        fix=inside("relaymail db upgrade", comment="add --standalone for a database that no API looks after"),
        verify="relaymail db status",
        related=("check.database.indexes", "check.database.permissions"),
    ),
    look,
    limit=25.0,
)
