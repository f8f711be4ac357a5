"""``relaymail config``: the settings as the host would have them."""

from __future__ import annotations

import json

import click

from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option, print_json, print_table
from relaymail.settings import describe


@click.group()
def config() -> None:
    """The settings of the host."""


@config.command("show")
@json_option
@pass_invocation
def show(invocation: Invocation, as_json: bool) -> None:
    """Show every setting, its value and where it came from; secrets are hidden."""
    loaded = invocation.loaded
    entries = describe(loaded)
    if as_json:
        print_json([entry._asdict() for entry in entries])
    else:
        rows = [(entry.key, json.dumps(entry.value), entry.source) for entry in entries]
        print_table(("KEY", "VALUE", "SOURCE"), rows, empty="There are no settings.")
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
