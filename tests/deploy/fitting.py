"""Whether values are of the types that a class declares; Grafana's model declares them and does not look."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Iterator
from typing import Any


def misfits(value: Any, hint: Any = object, path: str = "") -> Iterator[str]:
    """Where ``value``, or what is in it, is not what ``hint`` or its class says."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        found = [list(misfits(value, one, path)) for one in arguments]
        if all(found):
            yield min(found, key=len)[0]
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{path}: {value!r} is none of {arguments}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
            return
        for place, one in enumerate(value):
            yield from misfits(one, arguments[0], f"{path}[{place}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no object"
            return
        for key, one in value.items():
            yield from misfits(one, arguments[1], f"{path}.{key}")
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in [member.value for member in hint]:
            yield f"{path}: {value!r} is no {hint.__name__}"
    elif hint is None or (isinstance(hint, type) and hint in {bool, str, int, float, type(None)}):
        yield from _plain(value, type(None) if hint is None else hint, path)
    elif hasattr(type(value), "from_json"):
        if isinstance(hint, type) and not isinstance(value, hint):
            yield f"{path}: a {type(value).__name__} and no {hint.__name__}"
        for name, declared in typing.get_type_hints(type(value)).items():
            yield from misfits(getattr(value, name), declared, f"{path}.{name}")
    elif isinstance(hint, type) and hasattr(hint, "from_json"):
        yield f"{path}: {value!r} is no {hint.__name__}"


def _plain(value: Any, wanted: type, path: str) -> Iterator[str]:
    # JSON has one kind of number, and Python's booleans are integers
    fits = isinstance(value, (int, float) if wanted is float else wanted)
    if not fits or (isinstance(value, bool) and wanted is not bool):
        yield f"{path}: {value!r} is no {wanted.__name__}"
