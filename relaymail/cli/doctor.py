"""``relaymail doctor``: what is wrong with the installation, and how to mend it."""

from __future__ import annotations

import click

from relaymail.cli.context import Invocation, pass_invocation
from relaymail.cli.output import json_option

# The doctor knows all rooms: importing it would double the time that every other command takes to begin, so
# relaymail.cli.diagnosis is imported by the commands that need it.

EXAMPLES = """
\b
Examples:
  relaymail doctor
  relaymail doctor run --check check.dns --check check.tls
  relaymail doctor run --check check.integration.smtp --json
  relaymail doctor explain check.dns.spf

\b
Exit codes of `run`:
  0   nothing failed, or only what is for information
  1   something failed with severity `error`
  3   something failed with severity `warn`, nothing with `error`
"""


class _RunUnlessTold(click.Group):
    """``doctor`` alone, or with options only, is ``doctor run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunUnlessTold, epilog=EXAMPLES)
def doctor() -> None:
    """Find out what is wrong, why it matters, and how to mend it; `doctor` alone runs all checks.

    Give it the settings of the host, and run it where the host runs and as its user. It changes nothing,
    and works whether or not the host and the database do.
    """


@doctor.command("run")
@click.option(
    "--check", "ids", multiple=True, metavar="ID", help="Only this check, or those of an area: check.dns."
)
@click.option("--all-remedies", is_flag=True, help="Tell everything about each failure.")
@json_option
@pass_invocation
def run(invocation: Invocation, ids: tuple[str, ...], all_remedies: bool, as_json: bool) -> None:
    """Run the checks, side by side, and report.

    The exit code is 0 where nothing failed, 3 with warnings, 1 with errors.
    """
    from relaymail.cli import diagnosis

    everything = all_remedies or bool(ids)
    raise SystemExit(diagnosis.run_and_report(invocation, ids, everything=everything, as_json=as_json))


@doctor.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all checks."""
    from relaymail.cli import diagnosis

    diagnosis.print_list(as_json=as_json)


@doctor.command("explain")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
def explain(ids: tuple[str, ...], as_json: bool) -> None:
    """Tell what a check looks at, why it matters, and how to mend it."""
    from relaymail.cli import diagnosis

    diagnosis.print_pages(ids, as_json=as_json)
