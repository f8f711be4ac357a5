"""``relaymail doctor``: what is wrong with the installation, and how to mend it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from relaymail.cli.context import Invocation, pass_invocation, run
from relaymail.cli.output import clean, json_option, print_json, print_table
from relaymail.doctor import Check, Context, Outcome, chosen, exit_code, run_checks
from relaymail.doctor import report as reports
from relaymail.doctor.catalogue import CHECKS, UnknownCheck
from relaymail.doctor.runner import TOGETHER
from relaymail.settings import examine

SHOWN = 4
"""Checks named while they are waited for."""

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
def run_(invocation: Invocation, ids: tuple[str, ...], all_remedies: bool, as_json: bool) -> None:
    """Run the checks, side by side, and report.

    The exit code is 0 where nothing failed, 3 with warnings, 1 with errors.
    """
    checks = _chosen(ids)
    examined = examine(invocation.config, os.environ, demo=invocation.demo, data=invocation.data)

    async def body(reactor: Any) -> tuple[list[Outcome], float]:
        context = Context(examined, reactor=reactor, demo=invocation.demo)
        began = reactor.seconds()
        try:
            outcomes = await run_checks(checks, context, together=TOGETHER, progress=_progress)
            return outcomes, reactor.seconds() - began
        finally:
            await context.close()

    outcomes, seconds = run(body)
    if as_json:
        print_json(reports.outcomes_as_json(outcomes, seconds))
    else:
        _print(outcomes, everything=all_remedies or bool(ids))
    raise SystemExit(exit_code(outcomes))


@doctor.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List all checks."""
    if as_json:
        print_json([reports.check_as_json(check) for check in CHECKS])
        return
    rows = [(check.id, check.severity.value, ", ".join(check.tags), check.title) for check in CHECKS]
    print_table(("ID", "SEVERITY", "TAGS", "TITLE"), rows, empty="There are no checks.")


@doctor.command("explain")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@json_option
def explain(ids: tuple[str, ...], as_json: bool) -> None:
    """Tell what a check looks at, why it matters, and how to mend it."""
    checks = _chosen(ids)
    if as_json:
        print_json([reports.check_as_json(check) for check in checks])
        return
    for check in checks:
        _echo([*reports.heading(check), *reports.page(check), ""])


def _chosen(ids: Sequence[str]) -> Sequence[Check]:
    try:
        return chosen(ids)
    except UnknownCheck as unknown:
        raise click.UsageError(
            f"There is no check {clean(unknown)}: `relaymail doctor list` shows all."
        ) from None


def _progress(busy: Sequence[Check], seconds: float) -> None:
    """Say what is waited for, beside the report."""
    named = ", ".join(check.id for check in busy[:SHOWN])
    more = f" and {len(busy) - SHOWN} more" if len(busy) > SHOWN else ""
    click.echo(f"{seconds:.0f} s: waiting for {named}{more}", err=True)


def _print(outcomes: Sequence[Outcome], *, everything: bool) -> None:
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    kind = None if everything else reports.container_kind(os.environ, in_container)
    _echo(reports.overview(outcomes))
    failed = [outcome for outcome in outcomes if outcome.severity is not None]
    failed.sort(key=lambda outcome: -outcome.severity.rank if outcome.severity else 0)
    for outcome in failed:
        _echo(["", *reports.details(outcome, kind)])
    _echo(["", reports.conclusion(outcomes)])


def _echo(lines: Any) -> None:
    for line in lines:
        click.echo(clean(line))
