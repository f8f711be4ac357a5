"""``relaymail trace``: what happened to a message."""

from __future__ import annotations

import click

from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json, print_table
from relaymail.store import trace as store
from relaymail.store.database import Database

EXAMPLES = """
\b
Examples:
  relaymail trace 01890a5d-ac96
  relaymail trace "<20261121.4711@example.test>"
  relaymail trace 4711
"""


@click.command(epilog=EXAMPLES)
@click.argument("id", metavar="ID")
@json_option
@pass_invocation
def trace(invocation: Invocation, id: str, as_json: bool) -> None:
    """Show everything that happened to a message, in order of time, and what is to come.

    ID is that of the 250 reply (at least its first 8 characters), a Message-ID, or the number of a row of the
    queue. A Message-ID may take a while to find in a large archive.
    """

    async def work(database: Database) -> store.Trace:
        return await store.trace(database, await store.resolve(database, id))

    found = invocation.with_database(work)
    if as_json:
        print_json(found)
        return
    print_fields(
        (
            ("id", found.id),
            ("message id", f"<{found.header_message_id}>"),
            ("sender", f"<{found.sender}>"),
            ("subject", found.subject),
            ("size", found.size_bytes),
        )
    )
    click.echo()
    rows = [(entry.at, entry.what, entry.recipient, entry.text) for entry in found.entries]
    print_table(("AT", "WHAT", "RECIPIENT", "DETAIL"), rows, empty="Nothing is known of it.")
