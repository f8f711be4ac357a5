"""Check of our additional indexes on the shared tables."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store import schema
from relaymail.store.schema.public import INDEXES

_SQL = "\n".join(
    f'CREATE INDEX CONCURRENTLY IF NOT EXISTS {index.name} ON public."{index.table}" ({index.expression});'
    for index in INDEXES
)


async def look(context: Context) -> Finding:
    """Which of them are missing."""
    found = await context.ask(schema.status)
    if found.public == "missing":
        raise Skipped("the shared tables do not exist, see check.database.migrations")
    missing = found.missing_indexes
    if missing:
        return failed("Indexes are missing: looking up addresses is slow", *missing, missing=missing)
    return passed("The additional indexes are there")


CHECK = Check(
    "check.database.indexes",
    "Additional indexes exist",
    Severity.WARN,
    ("database", "performance"),
    Page(
        what="Looks for the indexes `relaymail_…` on the shared tables, by which addresses are found in any "
        "case.",
        why="Without them each recipient and each login reads the whole table of users: mail is taken all "
        "the same, "
        "and the slower the more users there are.",
        causes=(
            "The host's role does not own the shared tables, and only their owner may make indexes",
            "The API's migrations have made a table anew",
        ),
        fix=Remedy(
            f"docker compose exec -T db psql -U postgres relate <<'END'\n{_SQL}\nEND",
            f"sudo -u postgres psql relate <<'END'\n{_SQL}\nEND",
            f"kubectl exec -i statefulset/postgres -- psql -U postgres relate <<'END'\n{_SQL}\nEND",
        ),
        verify="relaymail db status",
        related=("check.database.migrations", "check.database.permissions"),
    ),
    look,
    limit=25.0,
)
