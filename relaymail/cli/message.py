"""``relaymail message``: what has been accepted and stored."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import click

from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json, print_table
from relaymail.store.archive import Archive, MessageDetail, MessageSummary
from relaymail.store.database import Database

id_argument = click.argument("message_id", metavar="ID")


EXAMPLES = """
\b
Examples:
  relaymail message list --limit 20
  relaymail message show 01890a5d-ac96
  relaymail message export 01890a5d-ac96 --output message.eml
  relaymail message export 01890a5d-ac96 --delivered
"""


@click.group(epilog=EXAMPLES)
def message() -> None:
    """Stored messages. ID is the one of the 250 reply, or at least its first 8 characters."""


@message.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="At most so many messages.",
)
@click.option("--before", metavar="ID", help="Only messages older than this one.")
@json_option
@pass_invocation
def list_(invocation: Invocation, limit: int, before: str | None, as_json: bool) -> None:
    """List messages, newest first."""

    async def work(database: Database) -> list[MessageSummary]:
        archive = Archive(database)
        return await archive.newest(limit=limit, before=await archive.resolve(before) if before else None)

    messages = invocation.with_database(work)
    if as_json:
        print_json(messages)
        return
    rows = [
        (
            m.received_at,
            m.id,
            m.listener,
            m.size_bytes,
            f"<{m.reverse_path}>",
            _first(m.recipients),
            m.subject,
        )
        for m in messages
    ]
    headings = ("RECEIVED", "ID", "LISTENER", "BYTES", "SENDER", "RECIPIENTS", "SUBJECT")
    print_table(headings, rows, empty="There are no messages.")


@message.command("show")
@id_argument
@json_option
@pass_invocation
def show(invocation: Invocation, message_id: str, as_json: bool) -> None:
    """Show what is known of a message: who sent it, from where, to whom, and what became of it."""

    async def work(database: Database) -> MessageDetail:
        archive = Archive(database)
        return await archive.show(await archive.resolve(message_id))

    detail = invocation.with_database(work)
    if as_json:
        print_json(detail)
    else:
        _print_detail(detail)


@message.command("export")
@id_argument
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write here instead.",
)
@click.option(
    "--delivered",
    is_flag=True,
    help="Write the message as a reader or the next host gets it: with trace headers, and, if it was"
    " submitted, mended and without Bcc.",
)
@json_option
@pass_invocation
def export(
    invocation: Invocation, message_id: str, output: Path | None, delivered: bool, as_json: bool
) -> None:
    """Write the bytes of a message, exactly as they were received, to standard output.

    With --output and --json, what was written is reported on standard output.
    """
    if as_json and output is None:
        raise click.UsageError("--json needs --output: standard output is the message itself.")

    parts = Archive.export_delivered if delivered else Archive.export

    async def work(database: Database) -> tuple[UUID, int]:
        archive = Archive(database)
        found = await archive.resolve(message_id)
        if output is None:
            return found, await _write(parts(archive, found), sys.stdout.buffer)
        with output.open("wb") as file:
            return found, await _write(parts(archive, found), file)

    found, size = invocation.with_database(work)
    if as_json:
        print_json({"id": found, "file": str(output), "size_bytes": size})


async def _write(parts: AsyncIterator[bytes], stream: BinaryIO) -> int:
    """Write the parts one by one; the number of bytes."""
    size = 0
    async for part in parts:
        stream.write(part)
        size += len(part)
    stream.flush()
    return size


def _first(recipients: list[str]) -> str:
    """The first recipient, and how many more there are."""
    if len(recipients) < 2:
        return "".join(recipients)
    return f"{recipients[0]} +{len(recipients) - 1}"


def _print_detail(detail: MessageDetail) -> None:
    facts = [(field.name, getattr(detail, field.name)) for field in fields(detail)]
    print_fields((name.replace("_", " "), value) for name, value in facts if not isinstance(value, list))
    recipients = [(r.address, r.user_id, r.parameters) for r in detail.recipients]
    _section("Recipients", ("ADDRESS", "USER", "PARAMETERS"), recipients)
    _section("Events", ("AT", "EVENT", "DETAIL"), [(e.at, e.kind, e.detail) for e in detail.events])
    notifications = [
        (o.id, o.state, o.attempts, o.due_at, o.finished_at, o.last_error) for o in detail.outbox
    ]
    _section("Notifications", ("ID", "STATE", "ATTEMPTS", "DUE", "FINISHED", "LAST ERROR"), notifications)
    emails = [(e.email_id, e.thread_id, e.type, e.address, e.user_id) for e in detail.emails]
    _section("Mailbox rows", ("EMAIL", "THREAD", "TYPE", "ADDRESS", "USER"), emails)


def _section(title: str, headings: tuple[str, ...], rows: Sequence[Sequence[object]]) -> None:
    click.echo(f"\n{title}")
    print_table(headings, rows, empty="(none)")
