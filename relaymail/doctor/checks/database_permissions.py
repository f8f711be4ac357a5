"""Check of the database role: may it do what the host does."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store import diagnosis

_GRANTS = """\
GRANT CREATE ON DATABASE relate TO relaymail;
GRANT USAGE ON SCHEMA public TO relaymail;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO relaymail;
GRANT INSERT ON "Emails", "EmailRecipients", "EmailAttachments" TO relaymail;
GRANT UPDATE ("LastUsedAt") ON "SmtpApiKeys" TO relaymail;"""


async def look(context: Context) -> Finding:
    """Ask the server for each right by itself: the API's tables are not tried out."""
    missing = await context.ask(diagnosis.missing_privileges)
    facts = await context.ask(diagnosis.server)
    if missing:
        return failed(
            f"The role {facts.user} lacks {len(missing)} right{'s' if len(missing) > 1 else ''} "
            f"in the database {facts.name}",
            *missing,
            missing=missing,
            role=facts.user,
        )
    return passed(f"The role {facts.user} may do all that the host does", role=facts.user)


CHECK = Check(
    "check.database.permissions",
    "Database role has the rights it needs",
    Severity.ERROR,
    ("database",),
    Page(
        what="Asks the server whether the role may read the shared tables, add mail to them, note the use of "
        "keys, and "
        "make and use schema `relaymail`.",
        why="Without a right to add mail every message is answered with `451`. Without a right to read users "
        "nobody can log in and no recipient is known.",
        causes=(
            "A role of its own was made, and not all of the grants were given",
            "The API made new tables after the grants; `GRANT … ON ALL TABLES` counts for those that exist",
            "Schema `relaymail` was made by another role, for example by a superuser with `db upgrade`",
            "A backup was restored without its rights (`pg_restore --no-acl`)",
        ),
        fix=Remedy(
            f"docker compose exec -T db psql -U postgres relate <<'END'\n{_GRANTS}\nEND",
            f"sudo -u postgres psql relate <<'END'\n{_GRANTS}\nEND",
            f"kubectl exec -i statefulset/postgres -- psql -U postgres relate <<'END'\n{_GRANTS}\nEND",
        ),
        verify="relaymail db status",
        related=("check.database.migrations", "check.database.reachable"),
    ),
    look,
    limit=25.0,
)
