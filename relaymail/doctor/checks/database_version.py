"""Check of the database server: is it one that keeps what it has acknowledged."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.data_source import NoDatabase
from relaymail.doctor.page import Page, Remedy
from relaymail.store import diagnosis
from relaymail.store.database import DatabaseError
from relaymail.store.dialing import OLDEST_SERVER, ServerRefused


async def look(context: Context) -> Finding:
    """Version, and what the host refuses to run on."""
    try:
        await context.source()
    except ServerRefused as why:
        return failed("The server must not be used", str(why))
    except (DatabaseError, NoDatabase):
        pass  # told of by check.database.reachable; asking says that it is
    facts = await context.ask(diagnosis.server)
    version = f"{facts.version // 10000}.{facts.version % 10000}"
    if facts.encoding != "UTF8":
        return failed(
            f"The database has the encoding {facts.encoding}",
            "Mail in other scripts cannot be stored in it: it has to be UTF8.",
        )
    oldest = OLDEST_SERVER // 10000
    return passed(f"PostgreSQL {version} is {oldest} or newer and writes durably", version=version)


CHECK = Check(
    "check.database.version",
    "Database server keeps what it acknowledges",
    Severity.ERROR,
    ("database",),
    Page(
        what="Looks at the server's version (14 or newer), at `fsync` and `full_page_writes` (both `on`), "
        "and at the "
        "database's encoding (UTF8).",
        why="`250` promises the sender that the message survives a crash. With `fsync` or `full_page_writes` "
        "off "
        "the server breaks that promise, so the host refuses to run on it.",
        causes=(
            "A server that was tuned for tests or for a bulk import, and left like that",
            "PostgreSQL 13 or older",
            "A database made with `ENCODING 'SQL_ASCII'` or `LATIN1`",
        ),
        fix=Remedy(
            "docker compose exec db psql -U postgres -c 'ALTER SYSTEM SET fsync = on' "
            "-c 'ALTER SYSTEM SET full_page_writes = on' -c 'SELECT pg_reload_conf()'",
            "sudo -u postgres psql -c 'ALTER SYSTEM SET fsync = on' -c 'ALTER SYSTEM SET full_page_writes = "
            "on' "
            "-c 'SELECT pg_reload_conf()'\n# too old, on Debian: pg_upgradecluster 13 main",
            "kubectl exec statefulset/postgres -- psql -U postgres -c 'ALTER SYSTEM SET fsync = on' "
            "-c 'ALTER SYSTEM SET full_page_writes = on' -c 'SELECT pg_reload_conf()'",
        ),
        verify='psql "$(relaymail db url)" -c "SHOW server_version" -c "SHOW fsync" -c "SHOW '
        'full_page_writes"',
        related=("check.database.reachable",),
    ),
    look,
    limit=25.0,
)
