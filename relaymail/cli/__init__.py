"""The command ``relaymail``: users, keys, messages, settings, database, outbox and limits of one host."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from relaymail.cli.config import config
from relaymail.cli.context import Invocation
from relaymail.cli.db import db
from relaymail.cli.dkim import dkim
from relaymail.cli.doctor import doctor
from relaymail.cli.key import key
from relaymail.cli.limits import limits
from relaymail.cli.message import message
from relaymail.cli.outbox import outbox
from relaymail.cli.queue import queue
from relaymail.cli.suppression import suppression
from relaymail.cli.trace import trace
from relaymail.cli.user import user

EPILOG = """
\b
Examples:
  relaymail user add anna@example.test --name "Anna A."
  relaymail key create anna@example.test --name laptop
  relaymail message list --limit 20
  relaymail message export 01890a5d-ac96 > message.eml
  relaymail queue list --domain example.org
  relaymail trace 01890a5d-ac96
  relaymail doctor
  relaymail --demo --data ./relaymail-demo db url

Settings come from --config and from the environment (Section__Key=value), as those of the host do: give
the same and the command talks about that host.

\b
Exit codes:
  0   done
  1   failed, or not found
  2   wrong usage of the command
  3   doctor found warnings, and nothing worse
  69  the database is not available
  78  a setting is wrong or missing
"""


@click.group(
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The host's settings file (JSON).",
)
@click.option("--demo", is_flag=True, help="Talk about a host that was started with --demo.")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="The host's data folder (Data:Directory)."
)
@click.version_option(package_name="relaymail", prog_name="relaymail", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, config_file: Path | None, demo: bool, data: Path | None) -> None:
    """Look after a relaymail host: its users and keys, messages, settings, database, outbox and limits."""
    context.obj = Invocation(config_file, demo, data)


for _group in (user, key, message, trace, queue, suppression, config, db, outbox, limits, dkim, doctor):
    cli.add_command(_group)


def main() -> None:
    """Run the command line and exit."""
    # A terminal that cannot show a character gets an escape for it, and no traceback
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    cli(prog_name="relaymail")
