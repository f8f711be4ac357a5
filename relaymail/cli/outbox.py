"""``relaymail outbox``: notifications on their way to the API."""

from __future__ import annotations

import click

from relaymail.cli.context import CommandFailed, Invocation, pass_invocation
from relaymail.cli.output import clean, json_option, print_json, print_table
from relaymail.store import outbox as store
from relaymail.store.database import Database

STATES = ("pending", "sent", "dead")


EXAMPLES = """
\b
Examples:
  relaymail outbox list --state dead
  relaymail outbox retry 17 18
  relaymail outbox retry --all-dead
"""


@click.group(epilog=EXAMPLES)
def outbox() -> None:
    """Notifications of new mail on their way to the API."""


@outbox.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only notifications in this state.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@json_option
@pass_invocation
def list_(invocation: Invocation, state: store.State | None, limit: int, as_json: bool) -> None:
    """List notifications: pending ones by due time, dead ones oldest first, else newest first."""

    async def work(database: Database) -> tuple[list[store.OutboxEntry], store.OutboxCounts, str | None]:
        entries = await store.list_rows(database, state, limit)
        return entries, await store.counts(database), await store.last_error(database)

    entries, counts, last_error = invocation.with_database(work)
    if as_json:
        print_json(entries)
        return
    rows = [
        (e.id, e.state, e.attempts, e.created_at, e.due_at, e.finished_at, e.message_id, e.last_error)
        for e in entries
    ]
    headings = ("ID", "STATE", "ATTEMPTS", "CREATED", "DUE", "FINISHED", "MESSAGE", "LAST ERROR")
    print_table(headings, rows, empty="There are no notifications.")
    click.echo(f"{counts.pending} pending ({counts.due} due), {counts.dead} dead", err=True)
    if last_error is not None:
        click.echo(f"Last error of those that wait: {clean(last_error)}", err=True)


@outbox.command("retry")
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
@click.option("--all-dead", is_flag=True, help="Retry all that were given up.")
@click.option("--all-pending", is_flag=True, help="Send now all that wait for a later time.")
@json_option
@pass_invocation
def retry(
    invocation: Invocation, ids: tuple[int, ...], all_dead: bool, all_pending: bool, as_json: bool
) -> None:
    """Make notifications due now: those with the IDs given, or all dead or waiting ones.

    One that was given up begins a new life; one that was sent stays sent.
    """
    if (bool(ids), all_dead, all_pending).count(True) != 1:
        raise click.UsageError("Give IDs, or --all-dead, or --all-pending: exactly one of the three.")

    async def work(database: Database) -> int:
        if ids:
            return await store.retry(database, ids)
        return await store.retry_all(database, "dead" if all_dead else "pending")

    changed = invocation.with_database(work)
    if as_json:
        print_json({"retried": changed})
    else:
        click.echo(f"{changed} made due.")
    if ids and changed < len(set(ids)):
        raise CommandFailed(f"{len(set(ids)) - changed} of these IDs are neither pending nor dead.")
