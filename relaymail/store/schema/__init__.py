"""Migrations of schema ``relaymail``, and the shared tables of schema ``public``.

A migration is a file ``NNN_name.sql``, run in one transaction and never edited once released. The tables of
``public`` belong to the API of the mail system; they are made here only for a database that has no API.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

from twisted.logger import Logger

from relaymail.store.database import Database, DatabaseError, Transaction
from relaymail.store.schema import public
from relaymail.store.schema.errors import PublicTablesConflict, SchemaMissing, SchemaTooNew

__all__ = [
    "Migration",
    "PublicTablesConflict",
    "SchemaMissing",
    "SchemaStatus",
    "SchemaTooNew",
    "migrations",
    "status",
    "upgrade",
]

log = Logger()

MIGRATION_LOCK = 0x72656C61796D6169
"""Key of the advisory lock under which one host at a time migrates: "relaymai" in ASCII."""

MIGRATION_TIMEOUT = 600.0
"""Seconds for one migration, waiting for another host's included."""

_INSUFFICIENT_PRIVILEGE = "42501"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """What is there and what is missing.

    ``version`` is the highest applied migration (0: none), ``latest`` the highest this code knows,
    ``pending`` the names of those to be applied. ``public`` is ``ready``, ``missing`` or ``partial``;
    ``missing_columns`` names columns of shared tables (``Table.Column``) that are missing or have another
    type, ``missing_indexes`` our additional indexes.
    """

    version: int
    latest: int
    pending: list[str]
    public: str
    missing_columns: list[str]
    missing_indexes: list[str]


def migrations() -> list[Migration]:
    """All steps, in their order."""
    found = []
    for file in resources.files(__name__).iterdir():
        match = re.fullmatch(r"(\d{3})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.number)


async def upgrade(database: Database, *, standalone: bool) -> list[str]:
    """Bring the database to this code's schema; returns the names of what was done, empty if nothing was.

    Any number of hosts may call it at once. With ``standalone`` the shared tables are made too, if none of
    them exists. Our additional indexes on the shared tables are made wherever those tables are; a lack of
    rights for that is only logged.

    :raises SchemaTooNew: the database has a migration this code does not know.
    :raises PublicTablesConflict: ``standalone``, and some shared tables exist that we did not make.
    :raises DatabaseError: the server failed or refused.
    """
    known = migrations()
    done: list[str] = []
    for migration in await _pending(database, known):

        async def step(transaction: Transaction, migration: Migration = migration) -> bool:
            return await _apply(transaction, migration, known)

        if await database.transaction("schema.migrate", step, timeout=MIGRATION_TIMEOUT):
            done.append(f"{migration.number:03d}_{migration.name}")
            log.info("Applied migration {number}: {name}", number=migration.number, name=migration.name)
    if standalone and await database.transaction("schema.public", _create_public, timeout=MIGRATION_TIMEOUT):
        done.append("public tables")
    done += await _create_indexes(database)
    return done


async def status(database: Database) -> SchemaStatus:
    """Look, change nothing.

    :raises DatabaseError: the server failed or refused.
    """
    known = migrations()
    applied = await _applied(database)
    missing_tables, missing_columns = await public.differences(database)
    if not missing_tables:
        state = "partial" if missing_columns else "ready"
    elif len(missing_tables) == len(public.TABLES):
        state, missing_columns = "missing", []
    else:
        state = "partial"
    return SchemaStatus(
        version=max(applied, default=0),
        latest=known[-1].number,
        pending=[f"{m.number:03d}_{m.name}" for m in known if m.number not in applied],
        public=state,
        missing_columns=missing_columns,
        missing_indexes=await public.missing_indexes(database),
    )


async def _applied(database: Database) -> set[int]:
    exists = await database.query(
        "schema.exists", "SELECT to_regclass('relaymail.schema_migration') IS NOT NULL"
    )
    if not exists[0][0]:
        return set()
    rows = await database.query("schema.version", "SELECT number FROM relaymail.schema_migration")
    return {int(row[0]) for row in rows}


async def _pending(database: Database, known: list[Migration]) -> list[Migration]:
    applied = await _applied(database)
    _refuse_newer(applied, known)
    return [migration for migration in known if migration.number not in applied]


def _refuse_newer(applied: set[int], known: list[Migration]) -> None:
    newest, latest = max(applied, default=0), known[-1].number
    if newest > latest:
        raise SchemaTooNew(
            f"The database has migration {newest} of schema relaymail, this relaymail knows them up to "
            f"{latest}: a newer relaymail has used it. Upgrade this one."
        )


async def _apply(transaction: Transaction, migration: Migration, known: list[Migration]) -> bool:
    """Run one step unless another host has done so while we waited for the lock."""
    await _take_turn(transaction)
    await transaction.execute("CREATE SCHEMA IF NOT EXISTS relaymail")
    await transaction.execute(
        "CREATE TABLE IF NOT EXISTS relaymail.schema_migration ("
        "number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,"
        "applied_at timestamptz NOT NULL DEFAULT now())"
    )
    rows = await transaction.query("SELECT number FROM relaymail.schema_migration")
    applied = {int(row[0]) for row in rows}
    _refuse_newer(applied, known)
    if migration.number in applied:
        return False
    await transaction.execute(migration.sql)
    await transaction.execute(
        "INSERT INTO relaymail.schema_migration (number, name, checksum) VALUES (%s, %s, %s)",
        (migration.number, migration.name, migration.checksum),
    )
    return True


async def _create_public(transaction: Transaction) -> bool:
    await _take_turn(transaction)
    return await public.create(transaction)


async def _take_turn(transaction: Transaction) -> None:
    """One host at a time, until the end of the transaction, whose statements may take their time."""
    limit = f"{MIGRATION_TIMEOUT:.0f}s"
    await transaction.query("SELECT set_config('statement_timeout', %s, true)", (limit,))
    await transaction.query("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))


async def _create_indexes(database: Database) -> list[str]:
    """Each in a transaction of its own: one that may not be made must not keep the others from it."""
    done = []
    for index in public.INDEXES:

        async def step(transaction: Transaction, index: public.Index = index) -> bool:
            await _take_turn(transaction)
            return await public.create_index(transaction, index)

        try:
            if await database.transaction("schema.index", step, timeout=MIGRATION_TIMEOUT):
                done.append(index.name)
        except DatabaseError as error:
            if error.sqlstate != _INSUFFICIENT_PRIVILEGE:
                raise
            log.warn("Index {index} on a table of the API may not be made, going on", index=index.name)
    return done
