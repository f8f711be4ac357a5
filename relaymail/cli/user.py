"""``relaymail user``: users, their additional addresses, and as whom else they may send."""

from __future__ import annotations

import click

from relaymail.cli.addresses import MailAddress, SenderAddress
from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json, print_table
from relaymail.store.administration import AdditionalAddress, Administration, Grant, User
from relaymail.store.database import Database

user_argument = click.argument("user", metavar="USER")
address_argument = click.argument("address", type=MailAddress(), metavar="ADDRESS")
sender_argument = click.argument("address", type=SenderAddress(), metavar="ADDRESS")


EXAMPLES = """
\b
Examples:
  relaymail user add anna@example.test --name "Anna A."
  relaymail user address add anna@example.test sales@example.test
  relaymail user grant anna@example.test @list.example.test
"""


@click.group(epilog=EXAMPLES)
def user() -> None:
    """Users, their additional addresses and grants. USER is an e-mail address or an id."""


@user.command("add")
@click.argument("email", type=MailAddress(), metavar="EMAIL")
@click.option("--name", help="Display name.")
@json_option
@pass_invocation
def add(invocation: Invocation, email: str, name: str | None, as_json: bool) -> None:
    """Add a user. EMAIL is the login name, and an address that mail is taken for."""

    async def work(database: Database) -> User:
        return await Administration(database).create_user(email, name)

    made = invocation.with_database(work)
    if as_json:
        print_json(made)
    else:
        print_fields([("user", made.email), ("id", made.id)])
        click.echo(f"Make a key to log in with: relaymail key create {made.email} --name NAME", err=True)


@user.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List all users, oldest first."""

    async def work(database: Database) -> list[User]:
        return await Administration(database).list_users()

    users = invocation.with_database(work)
    if as_json:
        print_json(users)
    else:
        rows = [(u.email, u.display_name, u.created_at, u.last_login_at, u.id) for u in users]
        print_table(("EMAIL", "NAME", "CREATED", "LAST LOGIN", "ID"), rows, empty="There are no users.")


@user.group("address")
def address_group() -> None:
    """Additional addresses. Only verified ones receive mail and may be sent as."""


@address_group.command("add")
@user_argument
@address_argument
@click.option("--unverified", is_flag=True, help="The user has yet to prove it, or you to verify it.")
@json_option
@pass_invocation
def address_add(invocation: Invocation, user: str, address: str, unverified: bool, as_json: bool) -> None:
    """Give USER an additional address, verified unless you say otherwise."""

    async def work(database: Database) -> User:
        administration = Administration(database)
        found = await administration.find_user(user)
        await administration.add_address(found, address, not unverified)
        return found

    _confirm(invocation.with_database(work), address, f"added{', unverified' if unverified else ''}", as_json)


@address_group.command("list")
@user_argument
@json_option
@pass_invocation
def address_list(invocation: Invocation, user: str, as_json: bool) -> None:
    """List the additional addresses of USER."""

    async def work(database: Database) -> list[AdditionalAddress]:
        administration = Administration(database)
        return await administration.list_addresses(await administration.find_user(user))

    addresses = invocation.with_database(work)
    if as_json:
        print_json(addresses)
    else:
        rows = [(a.address, a.verified, a.added_at) for a in addresses]
        print_table(("ADDRESS", "VERIFIED", "ADDED"), rows, empty="No additional addresses.")


@address_group.command("verify")
@user_argument
@address_argument
@json_option
@pass_invocation
def address_verify(invocation: Invocation, user: str, address: str, as_json: bool) -> None:
    """Take an additional address of USER as proven."""

    async def work(database: Database) -> User:
        administration = Administration(database)
        found = await administration.find_user(user)
        await administration.verify_address(found, address)
        return found

    _confirm(invocation.with_database(work), address, "verified", as_json)


@address_group.command("remove")
@user_argument
@address_argument
@json_option
@pass_invocation
def address_remove(invocation: Invocation, user: str, address: str, as_json: bool) -> None:
    """Take an additional address away from USER."""

    async def work(database: Database) -> User:
        administration = Administration(database)
        found = await administration.find_user(user)
        await administration.remove_address(found, address)
        return found

    _confirm(invocation.with_database(work), address, "removed", as_json)


class _GrantGroup(click.Group):
    """``grant USER ADDRESS`` is short for ``grant add USER ADDRESS``: no user is called ``list``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and ("@" in args[0] or args[0].count("-") == 4):
            args = ["add", *args]
        return super().resolve_command(ctx, args)


@user.group("grant", cls=_GrantGroup)
def grant_group() -> None:
    """As whom else a user may send.

    `relaymail user grant USER ADDRESS` lets USER send as ADDRESS, or as any address
    of a domain, given as @DOMAIN.
    """


@grant_group.command("add")
@user_argument
@sender_argument
@json_option
@pass_invocation
def grant_add(invocation: Invocation, user: str, address: str, as_json: bool) -> None:
    """Let USER send as ADDRESS, or as any address of @DOMAIN."""

    async def work(database: Database) -> User:
        administration = Administration(database)
        found = await administration.find_user(user)
        await administration.grant(found, address)
        return found

    _confirm(invocation.with_database(work), address, "granted", as_json)


@grant_group.command("list")
@user_argument
@json_option
@pass_invocation
def grant_list(invocation: Invocation, user: str, as_json: bool) -> None:
    """List what USER may send as beside the own addresses."""

    async def work(database: Database) -> list[Grant]:
        administration = Administration(database)
        return await administration.list_grants(await administration.find_user(user))

    grants = invocation.with_database(work)
    if as_json:
        print_json(grants)
    else:
        print_table(("ADDRESS", "GRANTED"), [(g.address, g.granted_at) for g in grants], empty="No grants.")


@grant_group.command("remove")
@user_argument
@sender_argument
@json_option
@pass_invocation
def grant_remove(invocation: Invocation, user: str, address: str, as_json: bool) -> None:
    """Take a grant back."""

    async def work(database: Database) -> User:
        administration = Administration(database)
        found = await administration.find_user(user)
        await administration.remove_grant(found, address)
        return found

    _confirm(invocation.with_database(work), address, "removed", as_json)


def _confirm(changed: User, address: str, what: str, as_json: bool) -> None:
    """Say what was done to an address or grant of a user."""
    if as_json:
        print_json({"user": changed.email, "user_id": changed.id, "address": address, "done": what})
    else:
        print_fields([("user", changed.email), ("address", address), ("done", what)])
