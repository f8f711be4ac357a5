"""The command ``relaymail``: users, keys, messages, settings, database, outbox and limits of one host."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

COMMANDS = {
    "config": "The settings of the host.",
    "db": "The database.",
    "dkim": "DKIM keys, which outgoing mail is signed with.",
    "doctor": "Find out what is wrong, why it matters, and how to mend it.",
    "key": "API keys, which mail programs log in with.",
    "limits": "Limits on clients: what the running hosts have counted.",
    "message": "Stored messages.",
    "outbox": "Notifications of new mail on their way to the API.",
    "queue": "Mail on its way to other hosts: one row for each recipient.",
    "suppression": "Addresses that their host has said do not exist.",
    "trace": "Show everything that happened to a message.",
    "user": "Users, their additional addresses and grants.",
}
"""Each command and what the list of them says of it; it is the module of that name that has it."""

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


class _Lazily(click.Group):
    """Imports a command when it is used: all of them take half a second, most of it for nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = getattr(import_module(f"relaymail.cli.{cmd_name}"), cmd_name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=_Lazily,
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
    from relaymail.cli.context import Invocation

    context.obj = Invocation(config_file, demo, data)


def main() -> None:
    """Run the command line and exit."""
    # A terminal that cannot show a character gets an escape for it, and no traceback
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    cli(prog_name="relaymail")
