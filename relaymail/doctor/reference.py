"""Writes ``docs/reference/doctor.md``, a page about every check, from the checks themselves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from relaymail.doctor.catalogue import CHECKS
from relaymail.doctor.check import Check
from relaymail.doctor.page import HEADINGS, KINDS
from relaymail.doctor.report import verify

_INTRODUCTION = """\
# Checks of the doctor

<!-- Made by `python -m relaymail.doctor.reference > docs/reference/doctor.md`; do not edit. -->

What `relaymail doctor` looks at; [how to use it](../how-to/doctor.md). `relaymail doctor explain ID` prints
the same for one check. The severity is that of a failure, where the text does not say otherwise. Commands
go by the names of the files in [deploy/](../deploy/): the service `relaymail` with its variables in
`relaymail.env`, the unit `relaymail` with `/etc/relaymail/environment`, the deployment `relaymail`.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    lines = [_INTRODUCTION, "| Check | Severity | |", "|---|---|---|"]
    lines += [
        f"| [`{check.id}`](#{_anchor(check)}) | {check.severity.value} | {check.title} |" for check in CHECKS
    ]
    for area, checks in groupby(CHECKS, lambda check: check.area):
        lines += ["", f"## {area}"]
        for check in checks:
            lines += _check(check)
    return "\n".join(lines) + "\n"


def _anchor(check: Check) -> str:
    """As GitHub makes it of the heading."""
    return check.id.replace(".", "")


def _check(check: Check) -> Iterator[str]:
    yield from ("", f"### {check.id}", "", f"{check.title}.", "")
    tags = ", ".join(f"`{tag}`" for tag in check.tags)
    yield f"Plugin `{check.plugin}`, severity `{check.severity.value}`, tags {tags}."
    yield from ("", f"**What it checks.** {check.page.what}", "", f"**Why it matters.** {check.page.why}", "")
    yield from ("**Common causes**", "")
    yield from (f"- {cause}" for cause in check.page.causes)
    yield from ("", "**How to fix it**")
    remedies = {kind: check.page.fix.of(kind) for kind in KINDS}
    if len(set(remedies.values())) == 1:
        yield from _code(remedies[KINDS[0]])
    else:
        for kind, commands in remedies.items():
            yield from ("", f"{HEADINGS[kind]}:", *_code(commands))
    yield from ("", "**How to verify**", *_code(verify(check)))
    related = [f"[`{other}`](#{other.replace('.', '')})" for other in check.page.related]
    yield from ("", f"**Related:** {', '.join(related)}")


def _code(commands: str) -> Iterator[str]:
    yield from ("", "```sh", commands, "```")


if __name__ == "__main__":
    print(reference(), end="")
