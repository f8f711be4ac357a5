"""Writes ``docs/reference/settings.md``, the reference of all settings, from the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relaymail.settings.load import DEMO
from relaymail.settings.schema import Branch, Leaf, tree

_INTRODUCTION = """\
# Settings

<!-- Made by `python -m relaymail.settings.reference > docs/reference/settings.md`; do not edit. -->

Settings come from, each over the one before:

1. the defaults below (with `--demo`, the demo's),
2. the JSON file given with `--config`,
3. environment variables,
4. `--data`, for `Data:Directory`.

`relaymail config show` prints every setting with its value and where it came from. Whatever is wrong is
reported in one go, with the key, what was given and what is allowed, before a port is opened. A key that
nearly spells a known one is an error; other unknown keys in these sections are warned about; sections of
other programs are passed over.

**The file** holds nested objects: `{"Smtp": {"Mx": {"Enabled": true}}}`. Comments (`//`, `/* */`),
commas behind the last element and a byte order mark are tolerated. Names match in any case,
`"Smtp:Mx:Enabled": true` works as well, and numbers and booleans may be written as texts. A `null`
counts as not given.

**Environment variables** are named like the key, with two underscores between the levels, in any case:
`Smtp__Mx__Enabled=true` or `SMTP__MX__ENABLED=true`. An empty variable unsets a key that has no value by
default.

**Lists** are arrays in the file and one variable for each element in the environment, counted from 0:
`Smtp__Mx__HostedDomains__0=example.com`. The environment replaces single elements of the file's list: to
shorten one, set its elements to an empty text, which drops out. Any element replaces the whole default.
A variable with commas is not a list.

**TimeSpans** are `[d.]hh:mm:ss[.fff]` or a plain number of seconds: `00:15:00` and `900` are the same,
`7.00:00:00` is a week; `hh:mm` is hours and minutes. Each may be given in a unit as well, with the
unit's name behind the key's: `LockoutWindowMinutes`, and likewise `…Seconds`, `…Hours`, `…Days`.

**Limits** with `:Mx` and `:Submission` may be given for both at once: `Smtp:Limits:Recipients=200`.

**The database** is named as ADO.NET does
(`Host=db;Port=5432;Database=relate;Username=relate;Password="…";SSL Mode=VerifyFull`, with Npgsql's
keywords and its rules of quoting) or as a `postgresql://` URL, as libpq reads it. Several hosts may be
given (`Host=db1,db2:5433`); then the one that takes writes is used. Keywords of Npgsql that have no
meaning here are passed over, unknown ones are an error. A connection string that is empty or blank
counts as missing: mail never goes to a database of our own because a secret was lost.

**Secrets** are shown as `***`, wherever settings are shown. A line break at their end is dropped.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    return "\n".join(
        [_INTRODUCTION, *(line for child in tree().children.values() for line in _section(child))]
    )


def _section(branch: Branch | Leaf) -> Iterator[str]:
    assert isinstance(branch, Branch)
    yield f"## {branch.name}\n"
    yield f"{branch.meaning}\n"
    yield "| Key | Default | Meaning | Allowed |"
    yield "|---|---|---|---|"
    for leaf in branch.leaves():
        cells = (f"`{leaf.path}`", _default(leaf), _meaning(branch, leaf), _allowed(leaf))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def _default(leaf: Leaf) -> str:
    text = _code(leaf.show(leaf.default))
    return f"{text} (demo: {_code(leaf.show(DEMO[leaf.path]))})" if leaf.path in DEMO else text


def _code(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(branch: Branch, leaf: Leaf) -> str:
    """What a key means; where it is one of a pair, what the pair means, too."""
    parent: Branch | Leaf = branch
    for name in leaf.path.lower().split(":")[1:-1]:
        assert isinstance(parent, Branch)
        parent = parent.children[name]
    assert isinstance(parent, Branch)
    return f"{parent.meaning} {leaf.spec.meaning}" if parent.scalar else leaf.spec.meaning


def _allowed(leaf: Leaf) -> str:
    kind = leaf.spec.kind.allowed
    return f"a list; each: {kind}" if leaf.spec.many else kind


if __name__ == "__main__":
    print(reference(), end="")
