"""Check of the database: can it be connected to."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.data_source import NoDatabase, NotMadeYet, NotNamed
from relaymail.doctor.page import Page, Remedy
from relaymail.store.database import DatabaseError
from relaymail.store.dialing import ServerRefused

SLOW = 1.0
"""Seconds for a connection, beyond which storing mail will be slow as well."""


async def look(context: Context) -> Finding:
    """Connect as the host does, once."""
    where = _where(context)
    try:
        source = await context.source()
    except (NotMadeYet, NotNamed) as why:
        raise Skipped(str(why)) from None
    except NoDatabase as why:
        return failed("There is no database to be had", str(why))
    except ServerRefused:
        raise Skipped("the server is reached but must not be used, see check.database.version") from None
    except DatabaseError as why:
        code = f" (SQLSTATE {why.sqlstate})" if why.sqlstate else ""
        return failed("The database cannot be reached", f"{why}{code}", *where)
    if source.seconds > SLOW:
        return failed(
            f"The database is slow: connecting took {source.seconds:.1f} s",
            *where,
            severity=Severity.WARN,
            seconds=round(source.seconds, 2),
        )
    return passed("The database can be reached", *where, seconds=round(source.seconds, 3))


def _where(context: Context) -> tuple[str, ...]:
    """The database's address, without the password."""
    connection = context.settings.connection
    if connection is None:
        return (f"embedded, in {context.settings.data.directory}",)
    return (connection.redacted(),)


CHECK = Check(
    "check.database.reachable",
    "Database can be reached",
    Severity.ERROR,
    ("database", "connectivity"),
    Page(
        what="Connects to the database of `ConnectionStrings:DefaultConnection` (or to the embedded one) and "
        "sets "
        "up a session, with 5 seconds for each address. Slow connecting is a warning.",
        why="Mail is accepted when the database has stored it, and not before. Without the database the host "
        "greets with `421 4.3.2`, and all senders keep their mail.",
        causes=(
            "PostgreSQL is stopped, or still starting",
            "Wrong host, port, user, password or database in the connection string",
            "A firewall or network policy between the two",
            "`pg_hba.conf` does not allow this address or user",
            "All of PostgreSQL's connections are used up (`max_connections`)",
            "`SSL Mode` asks for TLS that the server does not offer, or for a certificate it does not have",
        ),
        fix=Remedy(
            "docker compose ps db\ndocker compose up -d db\ndocker compose logs --tail 50 db",
            "systemctl status postgresql\nsystemctl start postgresql\nss -ltn 'sport = :5432'\n"
            "${EDITOR:-vi} /etc/relaymail/environment   # ConnectionStrings__DefaultConnection=…\n"
            "systemctl restart relaymail",
            "kubectl get pods,svc\nkubectl get secret relaymail -o yaml   # is the connection string there?\n"
            "kubectl rollout restart deployment/relaymail",
        ),
        verify='psql "$(relaymail db url)" -c "SELECT 1"',
        related=("check.database.version", "check.database.permissions", "check.settings.valid"),
    ),
    look,
    limit=25.0,
)
