"""Makes the structs of the model out of what the layers gave, and gathers every mistake on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from relaymail.settings.errors import SettingsError
from relaymail.settings.kinds import Kind
from relaymail.settings.layers import Given, Node, printable
from relaymail.settings.model import Section, Settings
from relaymail.settings.schema import OTHERS, Branch, Leaf, tree
from relaymail.settings.spelling import nearest
from relaymail.settings.timespan import format_timespan, parse_timespan

_LOGIN_IN_URL = re.compile(r"(://)[^/\s@]*@")
_PASSWORD = re.compile(r"(?i)((?:password|pwd|psw|secret|token|key)\s*=).*", re.DOTALL)
_EMPTY = Node("")


class Binder:
    """One pass over what was given; ``sources``, ``warnings``, ``errors`` and ``failed`` tell about it."""

    def __init__(self, defaults: Mapping[str, Any], default_source: str) -> None:
        """``defaults`` (by canonical key) lie over the model's own and under what is given."""
        self._defaults = defaults
        self._default_source = default_source
        self.sources: dict[str, str] = {}
        self.warnings: list[str] = []
        self.errors: list[str] = []
        self.failed: set[str] = set()
        """Keys whose value could not be read, and that hold a default for now."""

    def bind(self, root: Node) -> Settings:
        """Make the settings; keys with errors keep their default."""
        branch = tree()
        for name, node in root.children.items():
            if name not in branch.children:
                self._foreign(branch, node)
        settings = self._section(branch, root)
        assert isinstance(settings, Settings)
        return settings

    def _section(self, branch: Branch, node: Node) -> Section:
        whole = node.given
        if whole is not None and branch.path and not branch.scalar and whole.text.strip():
            self._error(branch.path, whole, "this is a section, not a value", "keys below it")
        known: set[str] = set()
        values: dict[str, Any] = {}
        for name, child in branch.children.items():
            below = node.children.get(name, _EMPTY)
            known.add(name)
            if isinstance(child, Branch):
                values[child.field] = self._section(child, below)
                continue
            alternatives = {
                ending: node.children[f"{name}{ending.lower()}"]
                for ending in child.units
                if f"{name}{ending.lower()}" in node.children
            }
            known.update(f"{name}{ending.lower()}" for ending in alternatives)
            values[child.field] = self._leaf(child, below, alternatives, whole if branch.scalar else None)
        if branch.path:
            for name, below in node.children.items():
                if name not in known:
                    self._unknown(branch, below)
        return branch.struct(**values)

    def _leaf(self, leaf: Leaf, node: Node, alternatives: Mapping[str, Node], whole: Given | None) -> Any:
        """The value given by a key's name, that with a unit, or its section's; else the default."""
        if leaf.spec.many:
            return self._list(leaf, node)
        for child in node.children.values():
            if (found := child.any_given()) is not None:
                self._error(
                    f"{leaf.path}:{child.name}",
                    found,
                    "this key has one value, not a section or list",
                    leaf.spec.kind.allowed,
                )
        candidates = [(node.given, 0)] if node.given else []
        if whole is not None and (not candidates or whole.rank > candidates[0][0].rank):
            candidates = [(whole, 0)]
        for ending, other in alternatives.items():
            if other.given is not None:
                candidates.append((other.given, leaf.units[ending]))
        if not candidates:
            return self._default(leaf)
        rank = max(given.rank for given, _ in candidates)
        candidates = [(given, unit) for given, unit in candidates if given.rank == rank]
        given, unit = candidates[0]
        if len(candidates) > 1:
            others = " and ".join(given.source for given, _ in candidates)
            return self._fail(leaf, leaf.path, given, f"given twice, with and without a unit ({others})")
        self.sources[leaf.path] = given.source
        if not given.text.strip():
            if leaf.optional:
                if leaf.path == "ConnectionStrings:DefaultConnection":
                    self.warnings.append(
                        f"{leaf.path} is set but empty ({given.source}), which counts as missing"
                    )
                return None
            return self._fail(leaf, leaf.path, given, "empty")
        try:
            return leaf.spec.kind.parse(_in_seconds(given.text, unit) if unit else given.text)
        except SettingsError as error:
            return self._fail(leaf, leaf.path, given, str(error))

    def _list(self, leaf: Leaf, node: Node) -> Any:
        """The elements by their index; blank ones drop out, and any element replaces the whole default."""
        if node.given is not None and node.given.text.strip():
            if not leaf.spec.single:
                hint = "__".join([*leaf.path.split(":"), "0"])
                return self._fail(
                    leaf,
                    leaf.path,
                    node.given,
                    f"a list is wanted: […] in the file, {hint} in the environment",
                )
            if not node.children:
                node = Node(node.name, children={"0": Node("0", given=node.given)})
        if not node.children:
            if node.given is None:
                return self._default(leaf)
            self.sources[leaf.path] = node.given.source
            return None if leaf.optional else ()
        items: list[Any] = []
        sources: dict[str, None] = {}
        for name, child in sorted(node.children.items(), key=lambda item: (len(item[0]), item[0])):
            given = child.any_given()
            if given is None:
                continue
            path = f"{leaf.path}:{child.name}"
            if not re.fullmatch("[0-9]{1,6}", name) or child.children:
                self._fail(leaf, path, given, "not the index of a list, from 0")
                continue
            sources[given.source] = None
            if given.text.strip():
                try:
                    items.append(leaf.spec.kind.parse(given.text))
                except SettingsError as error:
                    self._fail(leaf, path, given, str(error))
        self.sources[leaf.path] = ", ".join(sources)
        if leaf.optional and not items:
            return None
        return tuple(items if leaf.spec.kind.span else dict.fromkeys(items))

    def _default(self, leaf: Leaf) -> Any:
        if leaf.path in self._defaults:
            self.sources[leaf.path] = self._default_source
            return self._defaults[leaf.path]
        self.sources[leaf.path] = "default"
        return leaf.default

    def _fail(self, leaf: Leaf, path: str, given: Given, problem: str) -> Any:
        self._error(path, given, problem, leaf.spec.kind.allowed, kind=leaf.spec.kind)
        self.failed.add(leaf.path)
        self.sources.setdefault(leaf.path, given.source)
        return leaf.default

    def _error(self, path: str, given: Given, problem: str, allowed: str, kind: Kind | None = None) -> None:
        shown = "***" if kind and kind.secret else visible(given.text)
        self.errors.append(f"{path} is {shown} ({given.source}): {problem}; allowed: {allowed}")

    def _unknown(self, branch: Branch, node: Node) -> None:
        """A key in a section of ours that is none of ours."""
        given = node.any_given()
        others = OTHERS.get(branch.path, frozenset())
        if given is None or (others is not None and node.name.lower() in others):
            return
        path = f"{branch.path}:{node.name}"
        near = nearest(node.name, _names(branch))
        if near is not None:
            self.errors.append(f"{path} ({given.source}) is no known key; did you mean {branch.path}:{near}?")
            return
        if others is None:
            return
        plain = node.name.lower()
        elsewhere = [leaf.path for leaf in tree().leaves() if leaf.name.lower() == plain]
        hint = f"; there is {' and '.join(elsewhere[:3])}" if elsewhere else ""
        self.warnings.append(f"{path} ({given.source}) is no known key and has no effect{hint}")

    def _foreign(self, root: Branch, node: Node) -> None:
        """A section that is none of ours: another program's, or a misspelt one."""
        given = node.any_given()
        near = nearest(node.name, [child.name for child in root.children.values()], long=8)
        if given is None or near is None or not node.children:
            return
        section = root.children[near.lower()]
        assert isinstance(section, Branch)
        # a name of three letters is one edit away from many others: its keys must speak for it
        if len(near) > 3 or any(nearest(name, _names(section)) for name in node.children):
            self.errors.append(f"{node.name} ({given.source}) is no known section; did you mean {near}?")


def _names(branch: Branch) -> list[str]:
    """All names known in a section, those with a unit at their end included."""
    names = [child.name for child in branch.children.values()]
    for child in branch.children.values():
        if isinstance(child, Leaf):
            names += [child.name + ending for ending in child.units]
    return names


def _in_seconds(text: str, unit: int) -> str:
    """A plain number of ``unit`` seconds, as a TimeSpan."""
    if ":" in text:
        raise SettingsError("not a plain number")
    return format_timespan(parse_timespan(text) * unit)


def visible(text: str) -> str:
    """``text`` in quotes for an error: short, printable, without what looks like a login or a password."""
    text = _PASSWORD.sub(r"\1***", _LOGIN_IN_URL.sub(r"\1***@", text))
    if len(text) > 80:
        text = text[:79] + "…"
    return f'"{printable(text)}"'
