"""``relaymail queue``: mail on its way to other hosts."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence

import click

from relaymail.cli.context import CommandFailed, Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json, print_table
from relaymail.cli.queue_choice import Wanted, choosing
from relaymail.smtp.address import AddressError, parse_mailbox
from relaymail.store import queue_admin as store
from relaymail.store.database import Database
from relaymail.store.queue_counts import QueueCounts, queue_counts

EXAMPLES = """
\b
Examples:
  relaymail queue list
  relaymail queue list --domain example.org --state failed
  relaymail queue show 4711
  relaymail queue retry --domain example.org
  relaymail queue hold --sender anna@example.test
  relaymail queue cancel 4711 4712 --bounce "Sent by mistake"
  relaymail queue reroute --domain example.org --to backup.example.net

ID is the number that `list` shows, or the id of a message (at least its first 8 characters): all of its
recipients then. The same is to be had in SQL: relaymail.queue_view, relaymail.queue_retry(ids) and so on.
"""


@click.group(epilog=EXAMPLES)
def queue() -> None:
    """Mail on its way to other hosts: one row for each recipient."""


@queue.command("list")
@choosing
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many rows."
)
@json_option
def list_(wanted: Wanted, limit: int, as_json: bool) -> None:
    """List rows, oldest first: those that wait, unless --state says otherwise."""

    async def work(database: Database) -> tuple[list[store.QueueRow], QueueCounts]:
        choice = await wanted.choice(database, store.WAITING)
        return await store.list_rows(database, choice, limit), await queue_counts(database)

    rows, counts = _invocation().with_database(work)
    if as_json:
        print_json(rows)
        return
    print_table(
        ("ID", "STATE", "QUEUED", "NEXT TRY", "TRIES", "SENDER", "RECIPIENT", "DESTINATION", "LAST REPLY"),
        [
            (
                row.id,
                "sending" if row.sending else row.state,
                row.queued_at,
                _next(row),
                row.attempts,
                f"<{row.sender}>",
                row.recipient,
                row.destination,
                row.last_reply,
            )
            for row in rows
        ],
        empty="There are no such rows.",
    )
    click.echo(
        f"{counts.queued} queued ({counts.sending} being sent), {counts.held} held,"
        f" {counts.blocked} destinations that cannot be reached",
        err=True,
    )


@queue.command("show")
@click.argument("id", metavar="ID")
@json_option
@pass_invocation
def show(invocation: Invocation, id: str, as_json: bool) -> None:
    """Show all that is known of a row, or of the rows of a message, with every try."""

    async def work(database: Database) -> tuple[list[store.QueueRow], list[store.AttemptRow]]:
        choice = await Wanted((id,), (), None, None, None).choice(database, ())
        rows = await store.list_rows(database, choice, 10_000)
        return rows, await store.list_attempts(database, [row.id for row in rows])

    rows, attempts = invocation.with_database(work)
    if not rows:
        raise CommandFailed(f"There is no row {id}: `relaymail queue list --state all` shows them.")
    if as_json:
        print_json([{"row": row, "attempts": [a for a in attempts if a.queue_id == row.id]} for row in rows])
        return
    for place, row in enumerate(rows):
        if place:
            click.echo()
        print_fields(
            (name.replace("_", " "), getattr(row, name)) for name in store.QueueRow.__dataclass_fields__
        )
        click.echo("\nTries")
        print_table(
            ("NUMBER", "STARTED", "OUTCOME", "PHASE", "HOST", "ADDRESS", "TLS", "REPLY"),
            [
                (a.number, a.started_at, a.outcome, a.phase, a.host, a.address, a.tls, a.reply)
                for a in attempts
                if a.queue_id == row.id
            ],
            empty="(none)",
        )


@queue.command("destinations")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many."
)
@json_option
@pass_invocation
def destinations(invocation: Invocation, limit: int, as_json: bool) -> None:
    """List where mail waits for, the longest lines first, and which hosts cannot be reached."""
    rows = invocation.with_database(lambda database: store.list_destinations(database, limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("DESTINATION", "QUEUED", "SENDING", "HELD", "OLDEST", "NEXT TRY", "BLOCKED UNTIL", "WHY"),
        [
            (
                r.destination,
                r.queued,
                r.sending,
                r.held,
                r.oldest_at,
                r.next_due_at,
                r.blocked_until,
                r.reason,
            )
            for r in rows
        ],
        empty="Nothing waits.",
    )


@queue.command("retry")
@choosing
@json_option
def retry(wanted: Wanted, as_json: bool) -> None:
    """Try rows now, and ask hosts again that could not be reached.

    Failed and cancelled rows begin a new life; options choose among them only with --state.
    """
    condition = "is queued, failed or cancelled, and not being sent,"
    _change(wanted, ("queued",), store.retry, "made due", condition, as_json)


@queue.command("hold")
@choosing
@json_option
def hold(wanted: Wanted, as_json: bool) -> None:
    """Keep queued rows back until they are released. What is being sent right now may still be delivered."""
    _change(wanted, ("queued",), store.hold, "held", "is queued", as_json)


@queue.command("release")
@choosing
@json_option
def release(wanted: Wanted, as_json: bool) -> None:
    """Let held rows go on."""
    _change(wanted, ("held",), store.release, "released", "is held", as_json)


@queue.command("cancel")
@choosing
@click.option("--bounce", metavar="REASON", help="Tell the sender, with this reason; else nobody is told.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def cancel(wanted: Wanted, bounce: str | None, yes: bool, as_json: bool) -> None:
    """Give up queued and held rows. What is being sent at the moment may still be delivered."""

    def confirm(count: int) -> None:
        if yes or not count:
            return
        if not sys.stdin.isatty():
            raise CommandFailed(f"{count} rows would be cancelled: say --yes where nobody can be asked.")
        click.confirm(f"Cancel {count} rows?", abort=True, err=True)

    def change(database: Database, ids: Sequence[int]) -> Awaitable[int]:
        return store.cancel(database, ids, bounce)

    _change(wanted, store.WAITING, change, "cancelled", "is queued or held", as_json, confirm)


@queue.command("reroute")
@choosing
@click.option(
    "--to", "target", required=True, metavar="DOMAIN", help="A domain, or an address such as [192.0.2.1]."
)
@json_option
def reroute(wanted: Wanted, target: str, as_json: bool) -> None:
    """Send queued and held rows to the hosts of another domain; their recipients stay the same."""
    try:
        destination = parse_mailbox(f"postmaster@{target}").host
    except AddressError:
        raise click.BadParameter(
            f"{target!r} is neither a domain nor an address such as [192.0.2.1].", param_hint="--to"
        ) from None

    def change(database: Database, ids: Sequence[int]) -> Awaitable[int]:
        return store.reroute(database, ids, destination)

    _change(wanted, store.WAITING, change, "rerouted", "is queued or held", as_json)


def _change(
    wanted: Wanted,
    states: tuple[store.State, ...],
    change: Callable[[Database, Sequence[int]], Awaitable[int]],
    done: str,
    condition: str,
    as_json: bool,
    confirm: Callable[[int], None] = lambda count: None,
) -> None:
    """Find the rows, ask, change them, and tell."""
    if wanted.nothing:
        raise click.UsageError("Say which rows: by ID, --domain, --sender, --recipient or --state.")

    async def work(database: Database) -> tuple[int, int]:
        found = await store.find(database, await wanted.choice(database, states))
        confirm(len(found))
        return len(found), await change(database, found)

    found, changed = _invocation().with_database(work)
    if as_json:
        print_json({"found": found, "changed": changed})
    else:
        click.echo(f"{changed} rows {done}.")
    if wanted.ids and (not found or changed < found):
        unchanged = found - changed or "None"
        raise CommandFailed(f"{unchanged} of these rows did not change: only what {condition} can.")


def _invocation() -> Invocation:
    invocation = click.get_current_context().find_object(Invocation)
    assert invocation is not None
    return invocation


def _next(row: store.QueueRow) -> object:
    if row.state != "queued" or row.sending:
        return None
    return max(row.due_at, row.blocked_until) if row.blocked_until is not None else row.due_at
