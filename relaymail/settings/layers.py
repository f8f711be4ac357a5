"""The layers settings are read from, a JSON file and the environment, as one tree of texts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relaymail.settings.errors import SettingsError
from relaymail.settings.schema import tree

FILE, ENVIRONMENT = 1, 2
"""Ranks of the layers: the higher one counts."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was given, still text."""

    text: str
    source: str
    """In words: ``file /etc/relaymail.json``, ``environment SMTP__PORT``."""
    rank: int


@dataclass(slots=True)
class Node:
    """A name that was given, what stands at it and what stands below it."""

    name: str
    given: Given | None = None
    children: dict[str, Node] = field(default_factory=dict)
    """By lower-case name."""

    def put(self, path: list[str], given: Given) -> None:
        """Set the value at ``path`` below here."""
        node = self
        for name in path:
            node = node.children.setdefault(name.lower(), Node(printable(name)))
        node.given = given

    def any_given(self) -> Given | None:
        """Some value at or below this name."""
        if self.given is not None:
            return self.given
        return next((found for child in self.children.values() if (found := child.any_given())), None)


def read_file(path: Path, root: Node) -> None:
    """Put what the JSON file at ``path`` holds into ``root``.

    As in ASP.NET comments, commas behind the last element and a byte order mark are tolerated, and a key
    with a colon reaches into a section. Raises :class:`SettingsError` for a file that cannot be read, is no
    JSON object or gives a key twice.
    """
    source = f"file {path}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"The settings {source} cannot be read: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
        parsed = json.loads(
            _plain_json(text),
            object_pairs_hook=_Pairs,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_constant,
        )
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"The settings {source} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:
        problem = (
            "nested too deeply"
            if isinstance(error, RecursionError)
            else "not UTF-8 text, or it holds NaN or Infinity"
        )
        raise SettingsError(f"The settings {source} is not JSON: {problem}") from None
    if not isinstance(parsed, _Pairs):
        raise SettingsError(f"The settings {source} is not a JSON object ({{…}})")
    seen: set[tuple[str, ...]] = set()
    for names, value in _flat([], parsed):
        key = tuple(name.lower() for name in names)
        if key in seen:
            raise SettingsError(f"The settings {source} gives {printable(':'.join(names))} twice")
        seen.add(key)
        root.put(names, Given(value, source, FILE))


def read_environment(environ: Mapping[str, str], root: Node) -> None:
    """Put the variables of ``environ`` that have levels (``Smtp__Port``) into ``root``, in any case.

    Raises :class:`SettingsError` where two variables that differ in case only have different values.
    """
    seen: dict[str, Given] = {}
    errors: list[str] = []
    for variable, value in sorted(environ.items()):
        names = variable.replace("__", ":").split(":")
        if len(names) < 2 or not names[0]:
            continue
        given = Given(value, f"environment {printable(variable)}", ENVIRONMENT)
        other = seen.setdefault(":".join(names).lower(), given)
        if other.text != value and names[0].lower() in tree().children:
            errors.append(
                f"{given.source} and {other.source} name the same key and differ; allowed: one of them"
            )
        root.put(names, given)
    if errors:
        raise SettingsError(*errors)


def printable(text: str) -> str:
    """``text`` with everything that does not print replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class _Number(str):
    """A number of the file, in the digits it was written with."""

    __slots__ = ()


class _Pairs(list[tuple[str, Any]]):
    """An object of the file, duplicates included."""


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def _flat(names: list[str], value: Any) -> Iterator[tuple[list[str], str]]:
    """Every scalar below ``value`` with its path; an empty list is an empty text, null is nothing."""
    if isinstance(value, _Pairs):
        for name, child in value:
            yield from _flat([*names, *name.split(":")], child)
    elif isinstance(value, list):
        if not value:
            yield names, ""
        for index, child in enumerate(value):
            yield from _flat([*names, str(index)], child)
    elif isinstance(value, bool):
        yield names, "true" if value else "false"
    elif value is not None:
        yield names, str(value)


_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_COMMENTS = re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL)
_COMMAS = re.compile(rf"{_STRING}|,(?=\s*[}}\]])", re.DOTALL)


def _plain_json(text: str) -> str:
    """``text`` with comments and commas behind last elements blanked out, lines and columns kept."""

    def blank(match: re.Match[str]) -> str:
        found = match[0]
        return found if found.startswith('"') else re.sub(r"[^\r\n]", " ", found)

    return _COMMAS.sub(blank, _COMMENTS.sub(blank, text))
