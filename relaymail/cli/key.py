"""``relaymail key``: API keys, which mail programs log in with."""

from __future__ import annotations

import click

from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json, print_table
from relaymail.store.administration import Administration, Key, NewKey
from relaymail.store.database import Database

EXAMPLES = """
\b
Examples:
  relaymail key create anna@example.test --name laptop
  relaymail key list anna@example.test
  relaymail key revoke Zm9vYmFyYmF6
"""


@click.group(epilog=EXAMPLES)
def key() -> None:
    """API keys, which mail programs log in with.

    The login name is the user's e-mail address, the password is the key.
    """


@key.command("create")
@click.argument("user", metavar="USER")
@click.option("--name", required=True, help="What the key is for, as it will be listed.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("smtp",),
    show_default=True,
    help="What the key opens; may be repeated. Sending mail needs smtp.",
)
@json_option
@pass_invocation
def create(invocation: Invocation, user: str, name: str, scopes: tuple[str, ...], as_json: bool) -> None:
    """Make an API key for USER (an e-mail address or id) and print it, this once."""

    async def work(database: Database) -> NewKey:
        administration = Administration(database)
        return await administration.create_key(await administration.find_user(user), name, scopes)

    made = invocation.with_database(work)
    if as_json:
        print_json(made)
    else:
        print_fields([("user", made.user), ("key", made.key), ("id", made.id)])
        click.echo("Note the key now: only a hash of it is kept.", err=True)


@key.command("list")
@click.argument("user", metavar="[USER]", required=False)
@json_option
@pass_invocation
def list_(invocation: Invocation, user: str | None, as_json: bool) -> None:
    """List the keys of USER, or all, oldest first; revoked ones too."""

    async def work(database: Database) -> list[Key]:
        administration = Administration(database)
        return await administration.list_keys(await administration.find_user(user) if user else None)

    keys = invocation.with_database(work)
    if as_json:
        print_json(keys)
    else:
        rows = [
            (k.user, k.name, k.prefix, ", ".join(k.scopes), k.created_at, k.last_used_at, k.revoked_at, k.id)
            for k in keys
        ]
        headings = ("USER", "NAME", "PREFIX", "SCOPES", "CREATED", "LAST USED", "REVOKED", "ID")
        print_table(headings, rows, empty="There are no keys.")


@key.command("revoke")
@click.argument("key", metavar="KEY")
@json_option
@pass_invocation
def revoke(invocation: Invocation, key: str, as_json: bool) -> None:
    """Revoke a key at once. KEY is its id or its prefix of 12 characters."""

    async def work(database: Database) -> Key:
        return await Administration(database).revoke_key(key)

    revoked = invocation.with_database(work)
    if as_json:
        print_json(revoked)
    else:
        print_fields(
            [
                ("user", revoked.user),
                ("name", revoked.name),
                ("id", revoked.id),
                ("revoked", revoked.revoked_at),
            ]
        )
