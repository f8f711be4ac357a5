"""Migrations, and the shared tables of schema public, on real databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from relaymail.store.database import Database, Transaction
from relaymail.store.schema import (
    MIGRATION_LOCK,
    PublicTablesConflict,
    SchemaTooNew,
    migrations,
    public,
    status,
    upgrade,
)
from tests.conftest import reactor, run_on_reactor
from tests.support.postgres import PostgresServer

STEPS = [f"{migration.number:03d}_{migration.name}" for migration in migrations()]
OUR_INDEXES = [index.name for index in public.INDEXES]

CONTRACT = {
    "Users": "Id uuid, OidcSubject v500, OidcIssuer v500, Email v320, DisplayName v500?, "
    "CreatedAt tstz, LastLoginAt tstz?",
    "UserEmailAddresses": "Id uuid, UserId uuid, Address v320, IsVerified bool, AddedAt tstz, "
    "VerificationToken v6?, VerificationTokenExpiresAt tstz?",
    "SmtpApiKeys": "Id uuid, UserId uuid, Name v100, KeyHash v128, KeyPrefix v12?, Scopes v500, "
    "CreatedAt tstz, LastUsedAt tstz?, RevokedAt tstz?",
    "Emails": "Id uuid, MessageId v500, FromAddress v320, FromDisplayName v500?, Subject v1000, "
    "TextBody text?, HtmlBody text?, ReceivedAt tstz, SizeBytes bigint, InReplyTo v500?, "
    "References v2000?, ThreadId uuid?, SentByUserId uuid?",
    "EmailRecipients": "Id uuid, EmailId uuid, Address v320, DisplayName v500?, Type v10, "
    "UserId uuid?, IsRead bool",
    "EmailAttachments": "Id uuid, EmailId uuid, FileName v500, ContentType v200, SizeBytes bigint, "
    "Content bytea",
}
"""The tables as the other programs know them: ``vN`` is a varchar, ``?`` nullable."""

CONSTRAINTS = {
    ("PK_Users", 'PRIMARY KEY ("Id")'),
    ("PK_UserEmailAddresses", 'PRIMARY KEY ("Id")'),
    ("PK_SmtpApiKeys", 'PRIMARY KEY ("Id")'),
    ("PK_Emails", 'PRIMARY KEY ("Id")'),
    ("PK_EmailRecipients", 'PRIMARY KEY ("Id")'),
    ("PK_EmailAttachments", 'PRIMARY KEY ("Id")'),
    (
        "FK_UserEmailAddresses_Users_UserId",
        'FOREIGN KEY ("UserId") REFERENCES "Users"("Id") ON DELETE CASCADE',
    ),
    ("FK_SmtpApiKeys_Users_UserId", 'FOREIGN KEY ("UserId") REFERENCES "Users"("Id") ON DELETE CASCADE'),
    (
        "FK_EmailRecipients_Emails_EmailId",
        'FOREIGN KEY ("EmailId") REFERENCES "Emails"("Id") ON DELETE CASCADE',
    ),
    (
        "FK_EmailRecipients_Users_UserId",
        'FOREIGN KEY ("UserId") REFERENCES "Users"("Id") ON DELETE SET NULL',
    ),
    (
        "FK_EmailAttachments_Emails_EmailId",
        'FOREIGN KEY ("EmailId") REFERENCES "Emails"("Id") ON DELETE CASCADE',
    ),
}

INDEXES = {
    "IX_Users_Email": '("Email")',
    "IX_Users_OidcIssuer_OidcSubject": 'UNIQUE ("OidcIssuer", "OidcSubject")',
    "IX_UserEmailAddresses_Address": '("Address")',
    "IX_UserEmailAddresses_UserId_Address": 'UNIQUE ("UserId", "Address")',
    "IX_SmtpApiKeys_KeyPrefix_RevokedAt": '("KeyPrefix", "RevokedAt") WHERE ("RevokedAt" IS NULL)',
    "IX_SmtpApiKeys_UserId": '("UserId")',
    "IX_Emails_MessageId": '("MessageId")',
    "IX_Emails_ReceivedAt": '("ReceivedAt")',
    "IX_Emails_ThreadId": '("ThreadId")',
    "IX_EmailRecipients_Address": '("Address")',
    "IX_EmailRecipients_EmailId": '("EmailId")',
    "IX_EmailRecipients_UserId_IsRead": '("UserId", "IsRead")',
    "IX_EmailAttachments_EmailId": '("EmailId")',
}


@pytest.fixture
def empty(empty_database_parameters: dict[str, str]) -> Iterator[Database]:
    """A client on an empty database."""
    client = Database(empty_database_parameters, reactor=reactor)

    async def start() -> None:
        client.start()

    run_on_reactor(start())
    yield client
    run_on_reactor(client.stop())


async def columns(database: Database) -> dict[str, str]:
    """The public tables, written as in :data:`CONTRACT`."""
    rows = await database.query(
        "test.columns",
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable"
        " FROM information_schema.columns WHERE table_schema = 'public'"
        " ORDER BY table_name, ordinal_position",
    )
    short = {"timestamp with time zone": "tstz", "boolean": "bool"}
    found: dict[str, list[str]] = {}
    for table, column, kind, length, nullable in rows:
        name = f"v{length}" if kind == "character varying" else short.get(kind, kind)
        found.setdefault(table, []).append(f"{column} {name}{'?' if nullable == 'YES' else ''}")
    return {table: ", ".join(described) for table, described in found.items()}


async def indexes(database: Database) -> dict[str, str]:
    """The public tables' indexes but for those of primary keys."""
    rows = await database.query(
        "test.indexes", "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    )
    return {
        name: ("UNIQUE " if " UNIQUE " in definition else "") + definition.partition(" USING btree ")[2]
        for name, definition in rows
        if not name.startswith("PK_")
    }


async def make_as_the_api(database: Database) -> None:
    """A database as the API leaves it: its tables, and its own record of migrations."""
    sql = public.standalone_sql()
    await database.execute("test.tables", sql)
    await database.execute(
        "test.history",
        'CREATE TABLE public."__EFMigrationsHistory" ("MigrationId" varchar(150) CONSTRAINT'
        ' "PK___EFMigrationsHistory" PRIMARY KEY, "ProductVersion" varchar(32) NOT NULL)',
    )


async def test_the_standalone_tables_are_those_of_the_contract(empty: Database) -> None:
    assert await upgrade(empty, standalone=True) == [*STEPS, "public tables", *OUR_INDEXES]
    assert await columns(empty) == CONTRACT
    found = await indexes(empty)
    assert {name: found.pop(name) for name in OUR_INDEXES} == {
        "relaymail_users_email": '(lower(("Email")::text))',
        "relaymail_addresses_address": '(lower(("Address")::text))',
    }
    assert found == INDEXES
    constraints = await empty.query(
        "test.constraints",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'f', 'u', 'c')",
    )
    assert set(constraints) == CONSTRAINTS
    defaults = await empty.query(
        "test.defaults",
        "SELECT table_name, column_name, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_default IS NOT NULL",
    )
    assert defaults == [("SmtpApiKeys", "Scopes", "'[]'::character varying")]


async def test_no_foreign_key_and_no_view_crosses_the_schemas(database: Database) -> None:
    crossing = await database.query(
        "test.crossing",
        "SELECT conname FROM pg_constraint c JOIN pg_class a ON a.oid = c.conrelid"
        " JOIN pg_class b ON b.oid = c.confrelid WHERE a.relnamespace <> b.relnamespace",
    )
    views = await database.query(
        "test.views",
        "SELECT view_name, table_name FROM information_schema.view_table_usage"
        " WHERE view_schema IN ('public', 'relaymail') AND view_schema <> table_schema",
    )
    assert (crossing, views) == ([], [])


async def test_a_second_upgrade_does_nothing(empty: Database) -> None:
    await upgrade(empty, standalone=True)
    assert await upgrade(empty, standalone=True) == []
    assert await upgrade(empty, standalone=False) == []


async def test_many_hosts_can_upgrade_at_once(
    empty: Database, empty_database_parameters: dict[str, str]
) -> None:
    others = [Database(empty_database_parameters, reactor=reactor) for _ in range(3)]
    for other in others:
        other.start()
    try:
        done = await gatherResults(
            [Deferred.fromCoroutine(upgrade(host, standalone=True)) for host in (empty, *others)]
        )
    finally:
        for other in others:
            await other.stop()
    assert sorted(step for steps in done for step in steps) == sorted([*STEPS, "public tables", *OUR_INDEXES])
    assert (await status(empty)).public == "ready"


async def test_without_the_api_the_public_tables_are_awaited(empty: Database) -> None:
    assert await upgrade(empty, standalone=False) == STEPS
    assert await columns(empty) == {}
    found = await status(empty)
    assert (found.version, found.latest, found.pending) == (len(STEPS), len(STEPS), [])
    assert (found.public, found.missing_columns, found.missing_indexes) == ("missing", [], OUR_INDEXES)


async def test_status_of_an_empty_database_names_what_is_to_do(empty: Database) -> None:
    found = await status(empty)
    assert (found.version, found.pending, found.public) == (0, STEPS, "missing")


async def test_a_migrated_database_is_ready(database: Database) -> None:
    found = await status(database)
    assert (found.pending, found.public, found.missing_columns, found.missing_indexes) == (
        [],
        "ready",
        [],
        [],
    )


async def test_a_database_of_the_api_gets_only_our_indexes(empty: Database) -> None:
    await make_as_the_api(empty)
    tables, before = await columns(empty), await indexes(empty)
    assert await upgrade(empty, standalone=False) == [*STEPS, *OUR_INDEXES]
    assert await columns(empty) == tables
    after = await indexes(empty)
    assert {name: text for name, text in after.items() if name not in OUR_INDEXES} == before
    assert (await status(empty)).public == "ready"


async def test_standalone_refuses_a_database_of_the_api(empty: Database) -> None:
    await make_as_the_api(empty)
    with pytest.raises(PublicTablesConflict, match="__EFMigrationsHistory"):
        await upgrade(empty, standalone=True)


async def test_standalone_refuses_what_is_there_by_half(empty: Database) -> None:
    await empty.execute("test.users", 'CREATE TABLE public."Users" ("Id" uuid PRIMARY KEY)')
    with pytest.raises(PublicTablesConflict, match="Users exist and Email"):
        await upgrade(empty, standalone=True)
    assert list(await columns(empty)) == ["Users"]
    assert (await status(empty)).public == "partial"


async def test_an_older_api_is_seen_by_its_missing_columns(database: Database) -> None:
    await database.execute("test.older", 'ALTER TABLE "SmtpApiKeys" DROP COLUMN "KeyPrefix"')
    await database.execute("test.other", 'ALTER TABLE "Emails" ALTER COLUMN "Subject" TYPE varchar(100)')
    await database.execute("test.wider", 'ALTER TABLE "Emails" ALTER COLUMN "MessageId" TYPE text')
    found = await status(database)
    assert found.public == "partial"
    assert found.missing_columns == ["SmtpApiKeys.KeyPrefix", "Emails.Subject"]


async def test_a_newer_database_is_refused(database: Database) -> None:
    newer = len(STEPS) + 6
    await database.execute(
        "test.newer",
        "INSERT INTO relaymail.schema_migration (number, name, checksum) VALUES (%s, 'later', '')",
        (newer,),
    )
    with pytest.raises(SchemaTooNew, match=rf"migration {newer} .* Upgrade"):
        await upgrade(database, standalone=False)
    assert (await status(database)).version == newer


async def test_an_index_we_may_not_make_stops_nothing(
    empty: Database, empty_database_parameters: dict[str, str], postgres: PostgresServer
) -> None:
    name = empty_database_parameters["dbname"]
    await make_as_the_api(empty)
    role = f"host_{name}"
    for statement in (
        f'CREATE ROLE "{role}" LOGIN',
        f'GRANT CREATE ON DATABASE "{name}" TO "{role}"',
        f'GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO "{role}"',
    ):
        await empty.execute("test.role", statement)
    client = Database({**empty_database_parameters, "user": role}, reactor=reactor)
    client.start()
    try:
        assert await upgrade(client, standalone=False) == STEPS
        assert (await status(client)).missing_indexes == OUR_INDEXES
        assert (await status(client)).public == "ready"
    finally:
        await client.stop()
        await empty.execute("test.owned", f'DROP OWNED BY "{role}" CASCADE')
        postgres.sql("postgres", f'DROP ROLE "{role}"')


async def test_an_upgrade_may_wait_longer_than_a_statement(
    empty_database_parameters: dict[str, str],
) -> None:
    first, second = (
        Database(empty_database_parameters, reactor=reactor, statement_timeout=2.0) for _ in range(2)
    )
    first.start()
    second.start()
    try:

        async def occupy(transaction: Transaction) -> None:
            await transaction.query("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            waiting.append(Deferred.fromCoroutine(upgrade(second, standalone=False)))
            await transaction.query("SELECT set_config('statement_timeout', '60s', true)")
            await transaction.query("SELECT pg_sleep(3)")

        waiting: list[Deferred[list[str]]] = []
        await first.transaction("test.occupy", occupy, timeout=60.0)
        assert await waiting[0] == STEPS
    finally:
        await first.stop()
        await second.stop()


async def test_every_step_is_recorded_with_its_text(database: Database) -> None:
    rows: list[Any] = await database.query(
        "test.recorded", "SELECT number, name, checksum FROM relaymail.schema_migration ORDER BY number"
    )
    assert rows == [(step.number, step.name, step.checksum) for step in migrations()]
    assert [step.number for step in migrations()] == list(range(1, len(STEPS) + 1))
