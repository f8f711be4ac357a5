"""``relaymail suppression``: addresses that are not written to."""

from __future__ import annotations

import click

from relaymail.cli.context import CommandFailed, Invocation, pass_invocation
from relaymail.cli.output import json_option, print_json, print_table
from relaymail.smtp.address import AddressError, parse_mailbox
from relaymail.store import suppression as store
from relaymail.store.cache import Seconds
from relaymail.store.database import Database

EXAMPLES = """
\b
Examples:
  relaymail suppression list --match example.org
  relaymail suppression add nobody@example.org --reason "Has left" --days 365
  relaymail suppression remove anna@example.org
"""

DAY = 86400.0


@click.group(epilog=EXAMPLES)
def suppression() -> None:
    """Addresses that their host has said do not exist: mail for them is refused at RCPT, for 30 days."""


@suppression.command("list")
@click.option("--match", metavar="TEXT", help="Only addresses with this in them.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@json_option
@pass_invocation
def list_(invocation: Invocation, match: str | None, limit: int, as_json: bool) -> None:
    """List the addresses, the latest first."""

    async def work(database: Database, clock: Seconds) -> list[store.Suppression]:
        return await store.Suppressions(database, clock=clock).list_entries(match, limit)

    entries = invocation.with_database_and_clock(work)
    if as_json:
        print_json(entries)
        return
    print_table(
        ("ADDRESS", "STATUS", "SINCE", "UNTIL", "MESSAGE", "REPLY"),
        [(e.address, e.status, e.since, e.expires_at, e.message_id, e.reply) for e in entries],
        empty="No address is suppressed.",
    )


@suppression.command("add")
@click.argument("address")
@click.option("--reason", default="suppressed by the operator", show_default=True, help="Shown to senders.")
@click.option("--days", type=click.FloatRange(0, 36500), default=30, show_default=True, help="For so long.")
@json_option
@pass_invocation
def add(invocation: Invocation, address: str, reason: str, days: float, as_json: bool) -> None:
    """Write to ADDRESS no more. Mail that is queued already is still sent."""
    key = _key(address)

    async def work(database: Database, clock: Seconds) -> store.Suppression:
        return await store.Suppressions(database, clock=clock).add(key, reason, life=days * DAY)

    entry = invocation.with_database_and_clock(work)
    if as_json:
        print_json(entry)
    else:
        click.echo(f"{entry.address} is suppressed for {days:g} days.")


@suppression.command("remove")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@json_option
@pass_invocation
def remove(invocation: Invocation, addresses: tuple[str, ...], as_json: bool) -> None:
    """Write to these addresses again. Running hosts notice within ten seconds."""
    keys = [_key(address) for address in addresses]

    async def work(database: Database, clock: Seconds) -> int:
        return await store.Suppressions(database, clock=clock).remove(keys)

    removed = invocation.with_database_and_clock(work)
    if as_json:
        print_json({"removed": removed})
    else:
        click.echo(f"{removed} removed.")
    if removed < len(set(keys)):
        raise CommandFailed(f"{len(set(keys)) - removed} of these addresses were not suppressed.")


def _key(address: str) -> str:
    """The address as it is on the list."""
    try:
        return parse_mailbox(address).keys[0]
    except AddressError as error:
        raise click.BadParameter(f"{address!r} is no address: {error}") from None
