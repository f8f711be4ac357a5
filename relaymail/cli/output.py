"""How answers are printed: tables and fields for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from uuid import UUID

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
"""The option every command has."""


def clean(value: object) -> str:
    """``value`` as one line that is safe on a terminal: whatever is no printable character is escaped.

    Subjects and addresses come from strangers: a control sequence in one could rewrite the screen, a
    bidirectional override could hide the end of a line.
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return time_text(value)
    return "".join(c if c.isprintable() else _escape(c) for c in str(value))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def time_text(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: ``2026-01-31T12:00:00.000Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def print_json(value: object) -> None:
    """Print dataclasses, mappings and lists of them as JSON; ASCII only, which any terminal can show."""
    click.echo(json.dumps(value, default=_plain, indent=2))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print aligned columns under ``headings``; without rows, the sentence ``empty`` on standard error."""
    cells = [[clean(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    lines = [list(headings), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print one ``name  value`` a line, the values aligned."""
    pairs = [(name, clean(value)) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name.ljust(width)}  {value}".rstrip())
