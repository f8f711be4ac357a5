"""``relaymail db``, and what every command does about a database that is not as it should be."""

from __future__ import annotations

from pathlib import Path

import psycopg2
import pytest

from tests.cli.conftest import Command, settings
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer


def test_a_database_that_was_not_prepared_is_refused_with_the_remedy(unprepared: Command) -> None:
    for arguments in (["user", "list"], ["message", "list"], ["outbox", "list"]):
        assert "relaymail db upgrade" in unprepared.error(*arguments)


def test_without_shared_tables_the_remedy_is_another(unprepared: Command) -> None:
    assert "--standalone" in unprepared("db", "upgrade").stderr.decode()
    assert "relaymail db upgrade --standalone" in unprepared.error("user", "list")


def test_an_upgrade_says_what_it_did_and_may_be_repeated(unprepared: Command) -> None:
    before = unprepared.json("db", "status", code=1)
    assert (before["usable"], before["version"], before["public"]) == (False, 0, "missing")
    done = unprepared.json("db", "upgrade", "--standalone")
    assert "public tables" in done["done"]
    assert done["version"] == before["latest"]
    assert unprepared.text("db", "upgrade", "--standalone") == "Nothing to do.\n"
    assert unprepared.json("db", "status")["usable"] is True
    assert "version" in unprepared.text("db", "status")
    assert unprepared.json("user", "list") == []


def test_a_newer_database_is_refused(
    relaymail: Command, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    postgres.sql(
        database_parameters["dbname"],
        "INSERT INTO relaymail.schema_migration (number, name, checksum) VALUES (999, 'future', '')",
    )
    for arguments in (["user", "list"], ["db", "upgrade"]):
        message = relaymail.error(*arguments)
        assert "999" in message
        assert "pgrade" in message
    assert relaymail.json("db", "status", code=1)["usable"] is False


def test_the_url_is_one_that_opens_the_database(
    relaymail: Command, database_parameters: dict[str, str]
) -> None:
    url = relaymail.text("db", "url").rstrip("\n")
    assert url.startswith("postgresql://")
    assert relaymail.json("db", "url") == {"url": url}
    connection = psycopg2.connect(url)
    try:
        assert connection.info.dbname == database_parameters["dbname"]
    finally:
        connection.close()


def test_the_url_of_an_external_database_has_its_password(tmp_path: Path) -> None:
    given = "Host=db.test;Port=5433;Database=d;User Id=u;Password=p@s/w"
    command = Command({"ConnectionStrings__DefaultConnection": given}, tmp_path)
    assert command.text("db", "url") == "postgresql://u:p%40s%2Fw@db.test:5433/d\n"


def test_no_database_at_all_names_the_three_ways_on(tmp_path: Path) -> None:
    message = Command({}, tmp_path).error("user", "list", code=78)
    for way in ("ConnectionStrings:DefaultConnection", "Data:EmbeddedPostgres", "--demo"):
        assert way in message


def test_a_database_that_is_away_is_told_apart(tmp_path: Path) -> None:
    port = free_port()
    environment = settings({"host": "127.0.0.1", "port": str(port), "dbname": "d", "user": "u"})
    message = Command(environment, tmp_path).error("user", "list", code=69)
    assert f"database is not available (host=127.0.0.1 port={port} dbname=d user=u): " in message
    assert "onnect" in message


def test_a_wrong_database_name_is_reported_as_what_it_is(
    database_parameters: dict[str, str], tmp_path: Path
) -> None:
    command = Command(settings({**database_parameters, "dbname": "nosuchdatabase"}), tmp_path)
    assert "nosuchdatabase" in command.error("user", "list", code=69)


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        ({"Smtp__Port": "seventy"}, "Smtp:Port"),
        (
            {"ConnectionStrings__DefaultConnection": "Host=x;Nonsense=1"},
            "ConnectionStrings:DefaultConnection",
        ),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], key: str, tmp_path: Path) -> None:
    assert key in Command(environment, tmp_path).error("user", "list", code=78)
