"""``relaymail db``: the database's schema and address."""

from __future__ import annotations

import click

from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json
from relaymail.settings import ConnectionString
from relaymail.store import schema
from relaymail.store.database import Database
from relaymail.store.embedded import running_parameters
from relaymail.store.schema import SchemaStatus

EXAMPLES = """
\b
Examples:
  relaymail db upgrade
  relaymail db status --json
  psql "$(relaymail db url)"
"""


@click.group(epilog=EXAMPLES)
def db() -> None:
    """The database."""


@db.command("upgrade")
@click.option(
    "--standalone", is_flag=True, help="Make the shared tables too, for a database that no API looks after."
)
@json_option
@pass_invocation
def upgrade(invocation: Invocation, standalone: bool, as_json: bool) -> None:
    """Bring the database to the schema of this version. Safe to repeat, and while hosts run.

    The embedded database is always standalone.
    """
    alone = standalone or invocation.settings.connection is None

    async def work(database: Database) -> tuple[list[str], SchemaStatus]:
        return await schema.upgrade(database, standalone=alone), await schema.status(database)

    done, status = invocation.with_database(work, any_schema=True, make=True)
    if as_json:
        print_json({"done": done, "version": status.version, "public": status.public})
    else:
        click.echo(f"Done: {', '.join(done)}." if done else "Nothing to do.")
    if status.public != "ready" and not alone:
        click.echo(_public_advice(status), err=True)
    if status.missing_indexes:
        missing = ", ".join(status.missing_indexes)
        click.echo(f"These indexes could not be made, which costs speed: {missing}.", err=True)


@db.command("status")
@json_option
@pass_invocation
def status(invocation: Invocation, as_json: bool) -> None:
    """Show what the database has of the schema. Exit code 1 where something is missing or too new."""
    found = invocation.with_database(schema.status, any_schema=True)
    usable = not found.pending and found.version <= found.latest and found.public == "ready"
    if as_json:
        print_json({"usable": usable, **_fields(found)})
    else:
        print_fields((name.replace("_", " "), _text(value)) for name, value in _fields(found).items())
        if found.pending:
            click.echo("Run `relaymail db upgrade`.", err=True)
        if found.version > found.latest:
            click.echo("A newer relaymail has used this database: upgrade this one.", err=True)
        if found.public != "ready":
            click.echo(_public_advice(found), err=True)
    if not usable:
        raise SystemExit(1)


@db.command("url")
@json_option
@pass_invocation
def url(invocation: Invocation, as_json: bool) -> None:
    """Print the database's postgresql:// URL, password included, as psql takes it."""
    address = ConnectionString(invocation.database_parameters()).url()
    if as_json:
        print_json({"url": address})
    else:
        click.echo(address)
    settings = invocation.settings
    if settings.connection is None and running_parameters(settings.data.directory) is None:
        click.echo("No host runs on this data folder: until one does, the URL leads nowhere.", err=True)


def _fields(found: SchemaStatus) -> dict[str, object]:
    return {
        "version": found.version,
        "latest": found.latest,
        "pending": found.pending,
        "public": found.public,
        "missing_columns": found.missing_columns,
        "missing_indexes": found.missing_indexes,
    }


def _text(value: object) -> object:
    return (", ".join(value) or "none") if isinstance(value, list) else value


def _public_advice(found: SchemaStatus) -> str:
    """What to do about shared tables that are not as they should be."""
    if found.public == "missing":
        return (
            "The shared tables do not exist: start the API once, which makes them, or run "
            "`relaymail db upgrade --standalone` for a database without an API."
        )
    return f"Of the shared tables some columns are missing or other: {', '.join(found.missing_columns)}."
