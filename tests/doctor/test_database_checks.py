"""The database: reached or not, and why; its version, rights, tables, indexes, clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymail.doctor import Severity
from relaymail.store.embedded.cluster import SETTINGS
from relaymail.store.schema import migrations
from tests.doctor.conftest import Installation, failed_with, is_skipped, is_well
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer

BEHIND = ("check.database.version", "check.database.permissions", "check.mail.recipients", "check.queue.due")
ALL = (
    "check.database.reachable",
    "check.database.version",
    "check.database.permissions",
    "check.database.migrations",
    "check.database.indexes",
    "check.database.clock",
)


@pytest.fixture
def on_database(installation: Installation, database_parameters: dict[str, str]) -> Installation:
    installation.database(database_parameters)
    return installation


async def test_a_database_as_it_should_be(on_database: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaymail.doctor.checks.database_reachable.SLOW", 60.0)
    outcomes = await on_database.run(*ALL)
    assert [is_well(outcome) for outcome in outcomes] == [True] * len(ALL), outcomes


async def test_a_stopped_server(on_database: Installation, postgres: PostgresServer) -> None:
    postgres.stop()
    try:
        first, *others = await on_database.run("check.database.reachable", *BEHIND)
    finally:
        postgres.start()
    assert failed_with(first, Severity.ERROR, "cannot be reached", "dbname=")
    assert all(is_skipped(other, "check.database.reachable") for other in others)


async def test_a_frozen_server(on_database: Installation, postgres: PostgresServer) -> None:
    postgres.freeze()
    try:
        (outcome,) = await on_database.run("check.database.reachable")
    finally:
        postgres.thaw()
    assert failed_with(outcome, Severity.ERROR, "cannot be reached")


async def test_a_server_that_refuses_the_connection(installation: Installation) -> None:
    installation.database({"host": "127.0.0.1", "port": str(free_port()), "dbname": "x", "password": "hush"})
    outcome = await installation.look("check.database.reachable")
    assert failed_with(outcome, Severity.ERROR, "refused", "password=***")
    assert "hush" not in repr(outcome.finding)


async def test_a_database_that_is_not_there(installation: Installation, postgres: PostgresServer) -> None:
    installation.database(postgres.parameters("nosuch"))
    outcome = await installation.look("check.database.reachable")
    assert failed_with(outcome, Severity.ERROR, '"nosuch" does not exist')


async def test_a_host_name_that_does_not_resolve(installation: Installation) -> None:
    installation.database({"host": "db.invalid", "dbname": "relate"})
    outcome = await installation.look("check.database.reachable")
    assert failed_with(outcome, Severity.ERROR, "db.invalid does not resolve")


async def test_no_database_at_all(installation: Installation) -> None:
    assert is_skipped(await installation.look("check.database.reachable"), "check.settings.valid")
    assert is_skipped(await installation.look("check.mail.recipients"), "check.settings.valid")


@pytest.fixture(scope="module")
def careless() -> Iterator[PostgresServer]:
    """A server that may lose what it has acknowledged."""
    server = PostgresServer({**SETTINGS, "fsync": "off"})
    server.start()
    yield server
    server.remove()


async def test_a_server_that_would_lose_mail(installation: Installation, careless: PostgresServer) -> None:
    installation.database(careless.parameters("postgres"))
    reachable, version, permissions = await installation.run(
        "check.database.reachable", "check.database.version", "check.database.permissions"
    )
    assert failed_with(version, Severity.ERROR, "must not be used", "fsync = off")
    assert is_skipped(reachable, "check.database.version")
    assert is_skipped(permissions, "check.database.version")


async def test_a_database_that_cannot_hold_every_script(
    installation: Installation, postgres: PostgresServer
) -> None:
    postgres.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        installation.database(postgres.parameters("latin"))
        outcome = await installation.look("check.database.version")
    finally:
        postgres.drop_database("latin")
    assert failed_with(outcome, Severity.ERROR, "encoding LATIN1")


GRANTS = """
    GRANT USAGE ON SCHEMA public TO {role};
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
    GRANT INSERT ON "Emails", "EmailRecipients", "EmailAttachments" TO {role};
    GRANT UPDATE ("LastUsedAt") ON "SmtpApiKeys" TO {role};
    GRANT USAGE, CREATE ON SCHEMA relaymail TO {role};
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA relaymail TO {role};
"""


@pytest.fixture
def role(postgres: PostgresServer, database_parameters: dict[str, str]) -> Iterator[str]:
    """A role with every right that the guide has it given."""
    name, database = "doctor_test", database_parameters["dbname"]
    postgres.sql(database, f"CREATE ROLE {name} LOGIN")
    postgres.sql(database, GRANTS.format(role=name))
    yield name
    postgres.sql(database, f"DROP OWNED BY {name}")
    postgres.sql(database, f"DROP ROLE {name}")


async def test_a_role_of_its_own(
    on_database: Installation, role: str, database_parameters: dict[str, str]
) -> None:
    on_database.database({**database_parameters, "user": role})
    assert is_well(await on_database.look("check.database.permissions"))


@pytest.mark.parametrize(
    ("taken", "told"),
    [
        ('REVOKE INSERT ON "Emails" FROM {role}', 'INSERT on public."Emails"'),
        ('REVOKE SELECT ON "Users" FROM {role}', 'SELECT on public."Users"'),
        (
            'REVOKE UPDATE ("LastUsedAt") ON "SmtpApiKeys" FROM {role}',
            'UPDATE (LastUsedAt) on public."SmtpApiKeys"',
        ),
        ("REVOKE USAGE ON SCHEMA relaymail FROM {role}", "USAGE and CREATE on schema relaymail"),
        ("REVOKE DELETE ON relaymail.outbox FROM {role}", "DELETE on relaymail.outbox"),
        ("REVOKE USAGE ON SCHEMA public FROM {role}, PUBLIC", "USAGE on schema public"),
    ],
)
async def test_a_right_that_is_missing(
    on_database: Installation,
    role: str,
    postgres: PostgresServer,
    database_parameters: dict[str, str],
    taken: str,
    told: str,
) -> None:
    postgres.sql(database_parameters["dbname"], taken.format(role=role))
    on_database.database({**database_parameters, "user": role})
    outcome = await on_database.look("check.database.permissions")
    assert failed_with(outcome, Severity.ERROR, f"The role {role} lacks", told)


async def test_what_may_not_be_read_says_so(
    on_database: Installation, role: str, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    postgres.sql(database_parameters["dbname"], f"REVOKE SELECT ON relaymail.outbox FROM {role}")
    on_database.database({**database_parameters, "user": role})
    assert is_skipped(await on_database.look("check.mail.outbox-dead"), "check.database.permissions")


async def test_a_database_with_nothing_in_it(
    installation: Installation, empty_database_parameters: dict[str, str]
) -> None:
    installation.database(empty_database_parameters)
    tables, indexes, rights, mail = await installation.run(
        "check.database.migrations",
        "check.database.indexes",
        "check.database.permissions",
        "check.mail.recipients",
    )
    assert failed_with(
        tables, Severity.ERROR, "001_messages", "shared tables (Users, Emails, …) do not exist"
    )
    assert is_skipped(indexes, "check.database.migrations")
    assert is_well(rights)
    assert is_skipped(mail, "check.database.migrations")


async def test_migrations_that_wait_for_the_next_start(
    on_database: Installation, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    last = migrations()[-1].number
    postgres.sql(
        database_parameters["dbname"], f"DELETE FROM relaymail.schema_migration WHERE number = {last}"
    )
    outcome = await on_database.look("check.database.migrations")
    assert failed_with(outcome, Severity.WARN, f"{last:03d}_")


async def test_a_database_of_a_newer_version(
    on_database: Installation, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    postgres.sql(
        database_parameters["dbname"],
        "INSERT INTO relaymail.schema_migration (number, name, checksum) VALUES (999, 'future', '')",
    )
    assert failed_with(await on_database.look("check.database.migrations"), Severity.ERROR, "migration 999")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('ALTER TABLE "Emails" DROP COLUMN "Subject"', "Emails.Subject"),
        ('DROP TABLE "EmailAttachments"', "EmailAttachments"),
    ],
)
async def test_shared_tables_that_are_not_whole(
    on_database: Installation,
    postgres: PostgresServer,
    database_parameters: dict[str, str],
    change: str,
    told: str,
) -> None:
    postgres.sql(database_parameters["dbname"], change)
    assert failed_with(await on_database.look("check.database.migrations"), Severity.ERROR, told)


async def test_an_older_api_lacks_nothing_that_is_needed(
    on_database: Installation, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    postgres.sql(database_parameters["dbname"], 'ALTER TABLE "SmtpApiKeys" DROP COLUMN "KeyPrefix"')
    assert is_well(await on_database.look("check.database.migrations"))


async def test_an_index_that_is_missing(
    on_database: Installation, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    postgres.sql(database_parameters["dbname"], "DROP INDEX relaymail_users_email")
    outcome = await on_database.look("check.database.indexes")
    assert failed_with(outcome, Severity.WARN, "relaymail_users_email")


@pytest.mark.parametrize(
    ("seconds", "severity", "told"),
    [(30.0, Severity.WARN, "behind"), (-30.0, Severity.WARN, "ahead of"), (-3600.0, Severity.ERROR, "3600")],
)
async def test_clocks_that_do_not_agree(
    on_database: Installation, seconds: float, severity: Severity, told: str
) -> None:
    on_database.now = lambda: time.time() + seconds
    assert failed_with(await on_database.look("check.database.clock"), severity, told)


async def test_no_embedded_database(on_database: Installation) -> None:
    assert is_skipped(await on_database.look("check.database.embedded"), "not an embedded one")


def embed(installation: Installation) -> None:
    installation.set(Data__EmbeddedPostgres="true")


async def test_an_embedded_database_that_is_not_made_yet(installation: Installation, tmp_path: Path) -> None:
    embed(installation)
    folder, reachable, mail = await installation.run(
        "check.database.embedded", "check.database.reachable", "check.mail.recipients"
    )
    assert is_well(folder)
    assert is_skipped(reachable, "first start makes it")
    assert is_skipped(mail, "first start makes it")
    assert not (tmp_path / "data").exists()


async def test_an_embedded_database_of_another_version(installation: Installation, tmp_path: Path) -> None:
    embed(installation)
    data = tmp_path / "data" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("13\n")
    outcome = await installation.look("check.database.embedded")
    assert failed_with(outcome, Severity.ERROR, "are of PostgreSQL 13, the installed programs are")


async def test_something_else_in_the_embedded_databases_place(
    installation: Installation, tmp_path: Path
) -> None:
    embed(installation)
    (tmp_path / "data" / "postgres").mkdir(parents=True)
    (tmp_path / "data" / "postgres" / "holiday.jpg").write_text("")
    outcome = await installation.look("check.database.embedded")
    assert failed_with(outcome, Severity.ERROR, "no PostgreSQL data folder")
