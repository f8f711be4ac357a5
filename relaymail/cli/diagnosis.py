"""What ``relaymail doctor`` does: a module of its own, since what it needs takes a while to be imported."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred

from relaymail.cli.context import Invocation, run
from relaymail.cli.output import clean, print_json, print_table
from relaymail.doctor import CHECKS, Check, Context, Outcome, chosen, exit_code, run_checks
from relaymail.doctor import report as reports
from relaymail.doctor.catalogue import UnknownCheck
from relaymail.doctor.deadline import within
from relaymail.settings import examine

CLOSING = 20.0
"""Seconds to let go of what the checks have begun; stopping an embedded PostgreSQL can take 15."""
SHOWN = 4
"""Checks named while they are waited for."""


def run_and_report(invocation: Invocation, ids: Sequence[str], *, everything: bool, as_json: bool) -> int:
    """Run checks, print what they found, and return the exit code."""
    checks = _chosen(ids)
    examined = examine(invocation.config, os.environ, demo=invocation.demo, data=invocation.data)

    async def body(reactor: Any) -> tuple[list[Outcome], float]:
        context = Context(examined, reactor=reactor, demo=invocation.demo)
        began = reactor.seconds()
        try:
            outcomes = await run_checks(checks, context, progress=_progress)
            return outcomes, reactor.seconds() - began
        finally:
            try:
                await within(reactor, CLOSING, Deferred.fromCoroutine(context.close()))
            except TimeoutError:
                click.echo("Something that a check has begun does not end: it is left alone.", err=True)

    outcomes, seconds = run(body)
    if as_json:
        print_json(reports.outcomes_as_json(outcomes, seconds))
    else:
        _print(outcomes, everything=everything)
    return exit_code(outcomes)


def print_list(*, as_json: bool) -> None:
    """Print all checks."""
    if as_json:
        print_json([reports.check_as_json(check) for check in CHECKS])
        return
    rows = [(check.id, check.severity.value, ", ".join(check.tags), check.title) for check in CHECKS]
    print_table(("ID", "SEVERITY", "TAGS", "TITLE"), rows, empty="There are no checks.")


def print_pages(ids: Sequence[str], *, as_json: bool) -> None:
    """Print the pages of some checks."""
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


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(clean(line))
