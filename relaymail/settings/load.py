"""Reads the settings: defaults, under a JSON file, under the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from relaymail.settings.bind import Binder
from relaymail.settings.checks import oddities, problems
from relaymail.settings.errors import SettingsError
from relaymail.settings.layers import Given, Node, read_environment, read_file
from relaymail.settings.model import Section, Settings
from relaymail.settings.schema import tree

DEMO: Mapping[str, Any] = {
    "Data:Directory": Path("relaymail-demo"),
    "Data:EmbeddedPostgres": True,
    "Smtp:ServerName": "relaymail.example.test",
    "Smtp:Port": 2587,
    "Smtp:SecurePort": 2465,
    "Smtp:BindAddresses": ("127.0.0.1", "::1"),
    "Smtp:Mx:Enabled": True,
    "Smtp:Mx:Port": 2525,
    "Smtp:Mx:HostedDomains": ("example.test",),
}
"""Defaults of a demo, by key; all others are the usual ones."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where they came from."""

    settings: Settings
    sources: dict[str, str]
    """For each key ``default``, ``demo``, ``file PATH``, ``environment NAME`` or ``command line --data``."""
    warnings: list[str]
    """What was passed over or is hardly meant; to be logged at the start."""


@dataclass(frozen=True, slots=True)
class Examined:
    """Settings that may be wrong: what is wrong about them, and what they are otherwise."""

    loaded: Loaded
    """With the default for each key that has an error."""
    errors: tuple[str, ...]
    """What :func:`load` would raise, a sentence each."""
    _root: Node

    def given(self, key: str) -> Given | None:
        """What was given for ``key`` (``Email:Smtp:Host``), ours or another program's, as text."""
        node: Node | None = self._root
        for name in key.lower().split(":"):
            node = node.children.get(name) if node is not None else None
        return node.given if node is not None else None


class Entry(NamedTuple):
    """One key as ``config show`` prints it."""

    key: str
    value: Any
    """As JSON has it; secrets are ``***``, TimeSpans text."""
    source: str


def load(
    config: Path | None, environ: Mapping[str, str], *, demo: bool = False, data: Path | None = None
) -> Loaded:
    """Read the settings from the JSON file ``config`` (``None``: no file) and the variables ``environ`` over
    it.

    ``demo`` puts :data:`DEMO` under both; ``data`` is ``Data:Directory``, whatever they say. A connection
    string that is given turns the demo's embedded PostgreSQL off. Blocks while the file is read.

    Raises :class:`SettingsError` with all mistakes at once. A missing database is none here:
    :func:`~relaymail.settings.checks.require_database` asks for it.
    """
    root = Node("")
    if config is not None:
        read_file(config, root)
    read_environment(environ, root)
    loaded, errors = _bound(root, demo, data)
    if errors:
        raise SettingsError(*errors)
    return loaded


def examine(
    config: Path | None, environ: Mapping[str, str], *, demo: bool = False, data: Path | None = None
) -> Examined:
    """The same for who wants to know what is wrong, and go on. Raises nothing."""
    root = Node("")
    errors: list[str] = []
    try:
        if config is not None:
            read_file(config, root)
    except SettingsError as error:
        errors += error.errors
    try:
        read_environment(environ, root)
    except SettingsError as error:
        errors += error.errors
    loaded, wrong = _bound(root, demo, data)
    return Examined(loaded, (*errors, *wrong), root)


def _bound(root: Node, demo: bool, data: Path | None) -> tuple[Loaded, list[str]]:
    """The settings given in ``root``, and what is wrong about them."""
    binder = Binder(DEMO if demo else {}, "demo")
    settings = binder.bind(root)
    if demo and settings.connection is not None and binder.sources["Data:EmbeddedPostgres"] == "demo":
        settings = _with_data(settings, embedded_postgres=False)
        binder.sources["Data:EmbeddedPostgres"] = "demo, off because a connection string is given"
    if data is not None:
        settings = _with_data(settings, directory=data)
        binder.sources["Data:Directory"] = "command line --data"
    broken = [problem.text for problem in problems(settings) if not binder.failed.intersection(problem.keys)]
    loaded = Loaded(settings, binder.sources, [*binder.warnings, *oddities(settings)])
    return loaded, [*binder.errors, *broken]


def describe(loaded: Loaded) -> list[Entry]:
    """Every key with its value and source, in the order of the model; no secret in it."""
    entries = []
    for leaf in tree().leaves():
        value: Any = loaded.settings
        branch = tree()
        for name in leaf.path.lower().split(":"):
            child = branch.children[name]
            value = getattr(value, child.field)
            if not isinstance(value, Section):
                break
            assert not hasattr(child, "spec")
            branch = child
        entries.append(Entry(leaf.path, leaf.show(value), loaded.sources[leaf.path]))
    return entries


def _with_data(settings: Settings, **changes: Any) -> Settings:
    return msgspec.structs.replace(settings, data=msgspec.structs.replace(settings.data, **changes))
