"""The tree of keys, read off the structs of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from relaymail.settings.kinds import DAY, HOUR, MINUTE, Key
from relaymail.settings.model import PerListener, Section, Settings

UNITS: Mapping[str, int] = {"Seconds": 1, "Minutes": MINUTE, "Hours": HOUR, "Days": DAY}
"""Endings that make a plain number of a TimeSpan key: ``LockoutWindowMinutes``."""

OTHERS: Mapping[str, frozenset[str] | None] = {
    "ConnectionStrings": None,
    "Logging:LogLevel": None,
    "Logging": frozenset(
        (
            "console",
            "debug",
            "eventsource",
            "eventlog",
            "azureappservices",
            "applicationinsights",
            "opentelemetry",
        )
    ),
    # what a client of ours reads in the same section
    "Smtp": frozenset(("host", "usessl", "username", "password")),
}
"""Keys of other programs inside of our sections, passed over silently (lower case; ``None``: any)."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A key with a value."""

    name: str
    path: str
    """In canonical spelling: ``Smtp:Mx:HostedDomains``."""
    field: str
    spec: Key
    default: Any
    optional: bool
    """Whether it may be unset (``None``)."""

    @property
    def units(self) -> Mapping[str, int]:
        """The endings its name may have, with their seconds."""
        plain = self.spec.kind.span and not self.spec.many and not self.name.endswith("Seconds")
        return UNITS if plain else {}

    def show(self, value: Any) -> Any:
        """``value`` as JSON has it, secrets hidden."""
        if value is None:
            return None
        if self.name.endswith("Seconds") and self.spec.kind.span:
            return value
        if self.spec.many:
            return [self.spec.kind.show(item) for item in value]
        return self.spec.kind.show(value)


@dataclass(frozen=True, slots=True)
class Branch:
    """A section."""

    name: str
    path: str
    field: str
    struct: type[Section]
    meaning: str
    scalar: Key | None
    """Where one value may stand for all keys of the section."""
    children: Mapping[str, Leaf | Branch]
    """By lower-case name."""

    def leaves(self) -> Iterator[Leaf]:
        """All keys below, in the order of the model."""
        for child in self.children.values():
            if isinstance(child, Leaf):
                yield child
            else:
                yield from child.leaves()


@cache
def tree() -> Branch:
    """The root of all keys."""
    return _branch("", "", "", Settings, None, Settings())


def _branch(
    name: str, path: str, field: str, struct: type[Section], scalar: Key | None, value: Section
) -> Branch:
    hints = get_type_hints(struct, include_extras=True)
    children: dict[str, Leaf | Branch] = {}
    for info in msgspec.structs.fields(struct):
        hint = hints[info.name]
        child = info.encode_name
        below = f"{path}:{child}" if path else child
        default = getattr(value, info.name)
        kind, *notes = (
            get_args(hint) if get_origin(hint) is not None or hasattr(hint, "__metadata__") else (hint,)
        )
        spec = next((note for note in notes if isinstance(note, Key)), None)
        if isinstance(kind, type) and issubclass(kind, Section):
            children[child.lower()] = _branch(child, below, info.name, kind, spec, default)
        else:
            assert spec is not None, f"{below} has no Key"
            optional = type(None) in get_args(kind)
            children[child.lower()] = Leaf(child, below, info.name, spec, default, optional)
    meaning = scalar.meaning if scalar else (struct.__doc__ or "").strip()
    return Branch(name, path, field, struct, meaning, scalar, children)


__all__ = ["OTHERS", "UNITS", "Branch", "Leaf", "PerListener", "tree"]
