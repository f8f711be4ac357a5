"""The reference of the command line, made of the commands themselves:
``python -m tests.packaging.cli_reference > docs/reference/cli.md``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from relaymail.cli import cli

HEAD = """# The command `relaymail`

<!-- Made by `python -m tests.packaging.cli_reference > docs/reference/cli.md`; do not edit. -->

`relaymail [OPTIONS] COMMAND`: the options before the command say which host is meant, by the same settings
file, data folder and environment that the host was started with. `--json` prints JSON, for programs;
errors go to standard error. `python -m relaymail.cli` is the same command.

| Exit code | |
|---|---|
| 0 | done |
| 1 | failed, or not found |
| 2 | wrong usage of the command |
| 3 | `doctor` found warnings, and nothing worse |
| 69 | the database is not available |
| 78 | a setting is wrong or missing |
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_options(cli), *_commands("relaymail", cli)]).rstrip() + "\n"


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """The commands of a group by name, in order; those of ``relaymail`` are imported for it."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in sorted(group.list_commands(context))}
    return {name: command for name, command in found.items() if command is not None}


def _commands(path: str, group: click.Group) -> Iterator[str]:
    for name, command in commands_of(group).items():
        full = f"{path} {name}"
        if isinstance(command, click.Group):
            yield from (f"## {full}", "", _help(command), "")
            yield from _commands(full, command)
        else:
            yield from (f"### {full}", "", f"`{_usage(full, command)}`", "", _help(command), "")
            yield from _options(command)


def _usage(path: str, command: click.Command) -> str:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    names = [str(argument.metavar or argument.human_readable_name.upper()) for argument in arguments]
    shown = [
        name if argument.required or name.startswith("[") else f"[{name}]"
        for name, argument in zip(names, arguments, strict=True)
    ]
    return " ".join([path, "[OPTIONS]", *shown])


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "")


def _options(command: click.Command) -> Iterator[str]:
    options = [param for param in command.params if isinstance(param, click.Option)]
    if not options:
        return
    yield from ("| Option | Meaning |", "|---|---|")
    for option in options:
        names = ", ".join(option.opts)
        value = "" if option.is_flag or option.count else f" {_value(option)}"
        notes = (
            " Required."
            if option.required
            else " May be repeated."
            if option.multiple and "repeated" not in (option.help or "")
            else ""
        )
        yield f"| `{names}{value}` | {(option.help or '').rstrip('.')}.{notes} |"
    yield ""


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return r"\|".join(str(choice) for choice in option.type.choices)
    return option.metavar or option.type.name.upper().replace(" RANGE", "")


if __name__ == "__main__":
    print(reference(), end="")
