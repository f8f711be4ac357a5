"""The shared tables of schema ``public``: what is expected of them, and how to make them without an API.

Names, types and constraints are those the API's own migrations (Entity Framework Core) make, so that its
programs find what they know.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from relaymail.store.database import Database, Transaction
from relaymail.store.schema.errors import PublicTablesConflict

HISTORY = "__EFMigrationsHistory"
"""The API's own record of its migrations: where it exists the tables are the API's."""

TABLES: dict[str, dict[str, str]] = {
    "Users": {
        "Id": "uuid",
        "OidcSubject": "character varying(500)",
        "OidcIssuer": "character varying(500)",
        "Email": "character varying(320)",
        "DisplayName": "character varying(500)",
        "CreatedAt": "timestamp with time zone",
        "LastLoginAt": "timestamp with time zone",
    },
    "UserEmailAddresses": {
        "Id": "uuid",
        "UserId": "uuid",
        "Address": "character varying(320)",
        "IsVerified": "boolean",
        "AddedAt": "timestamp with time zone",
    },
    "SmtpApiKeys": {
        "Id": "uuid",
        "UserId": "uuid",
        "Name": "character varying(100)",
        "KeyHash": "character varying(128)",
        "KeyPrefix": "character varying(12)",
        "Scopes": "character varying(500)",
        "CreatedAt": "timestamp with time zone",
        "LastUsedAt": "timestamp with time zone",
        "RevokedAt": "timestamp with time zone",
    },
    "Emails": {
        "Id": "uuid",
        "MessageId": "character varying(500)",
        "FromAddress": "character varying(320)",
        "FromDisplayName": "character varying(500)",
        "Subject": "character varying(1000)",
        "TextBody": "text",
        "HtmlBody": "text",
        "ReceivedAt": "timestamp with time zone",
        "SizeBytes": "bigint",
        "InReplyTo": "character varying(500)",
        "References": "character varying(2000)",
        "ThreadId": "uuid",
        "SentByUserId": "uuid",
    },
    "EmailRecipients": {
        "Id": "uuid",
        "EmailId": "uuid",
        "Address": "character varying(320)",
        "DisplayName": "character varying(500)",
        "Type": "character varying(10)",
        "UserId": "uuid",
        "IsRead": "boolean",
    },
    "EmailAttachments": {
        "Id": "uuid",
        "EmailId": "uuid",
        "FileName": "character varying(500)",
        "ContentType": "character varying(200)",
        "SizeBytes": "bigint",
        "Content": "bytea",
    },
}
"""The columns the host uses, with their types as ``format_type`` writes them."""


@dataclass(frozen=True, slots=True)
class Index:
    """An index of ours on a shared table; it changes nothing for the table's other users."""

    name: str
    table: str
    expression: str


INDEXES = (
    Index("relaymail_users_email", "Users", 'lower("Email")'),
    Index("relaymail_addresses_address", "UserEmailAddresses", 'lower("Address")'),
)
"""Addresses match in any case; the API's indexes know only the exact text."""

_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname = ANY(%s)
  AND a.attnum > 0 AND NOT a.attisdropped
"""

_EXISTING = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relkind IN (%s, 'p') AND c.relname = ANY(%s)
"""


async def differences(database: Database) -> tuple[list[str], list[str]]:
    """Tables that are missing, and columns (``Table.Column``) that are missing or of another type."""
    rows = await database.query("schema.columns", _COLUMNS, (list(TABLES),))
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    tables = [table for table in TABLES if table not in found]
    columns = [
        f"{table}.{column}"
        for table, expected in TABLES.items()
        for column, kind in expected.items()
        if not _holds(found.get(table, {}).get(column), kind)
    ]
    return tables, columns


def _holds(actual: str | None, expected: str) -> bool:
    """Whether a column of type ``actual`` takes all that ``expected`` does."""
    return actual == expected or (actual == "text" and expected.startswith("character varying"))


async def missing_indexes(database: Database) -> list[str]:
    """Names of our indexes that do not exist."""
    names = [index.name for index in INDEXES]
    rows = await database.query("schema.indexes", _EXISTING, ("i", names))
    found = {row[0] for row in rows}
    return [name for name in names if name not in found]


def standalone_sql() -> str:
    """The statements that make all shared tables."""
    assert __package__ is not None
    return resources.files(__package__).joinpath("public.sql").read_text(encoding="utf-8")


async def create(transaction: Transaction) -> bool:
    """Make all shared tables if none exists; False if they are there and were made here.

    :raises PublicTablesConflict: they are the API's, or only some of them exist.
    """
    rows = await transaction.query(_EXISTING, ("r", [*TABLES, HISTORY]))
    existing = {row[0] for row in rows}
    if HISTORY in existing:
        raise PublicTablesConflict(
            f'The database has been migrated by the API ("{HISTORY}" exists): its tables are used '
            "as they are. Leave out --standalone."
        )
    if not existing:
        await transaction.execute(standalone_sql())
        return True
    missing = sorted(set(TABLES) - existing)
    if missing:
        raise PublicTablesConflict(
            f"Of the shared tables {', '.join(sorted(existing))} exist and {', '.join(missing)} do not: "
            "this is neither an empty database nor a complete one, so nothing was changed."
        )
    return False


async def create_index(transaction: Transaction, index: Index) -> bool:
    """Make ``index`` if its table exists and it does not; whether it was made."""
    tables = await transaction.query(_EXISTING, ("r", [index.table]))
    there = await transaction.query(_EXISTING, ("i", [index.name]))
    if not tables or there:
        return False
    await transaction.execute(f'CREATE INDEX {index.name} ON public."{index.table}" ({index.expression})')
    return True
