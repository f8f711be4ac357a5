"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

_SPANS: Final[tuple[tuple[int, str], ...]] = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
_SHORT: Final[tuple[tuple[int, str], ...]] = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_SPACE: Final = "\N{NO-BREAK SPACE}"


def count(number: float) -> str:
    """``1,234``."""
    return f"{number:,.0f}"


def rate(number: float) -> str:
    """``1,234``, ``12``, ``0.4``, ``0``."""
    return count(number) if number >= 10 or number == 0 else f"{number:.1f}"


def milliseconds(seconds: float) -> str:
    """``0.04 ms``, ``1.2 ms``, ``12 ms``, ``5.00 s``."""
    value = seconds * 1000
    if value >= 1000:
        return f"{seconds:.2f}{_SPACE}s"
    digits = 0 if value >= 10 else 1 if value >= 1 else 2
    return f"{value:.{digits}f}{_SPACE}ms"


def duration(seconds: float, units: int = 2) -> str:
    """Its largest units, one behind the other: ``3 d 4 h``, ``5 min``, ``12 s``."""
    parts = []
    rest = int(seconds)
    for size, name in _SHORT:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number}{_SPACE}{name}")
        elif parts:
            break
    return " ".join(parts[:units]) or f"0{_SPACE}s"


def span(seconds: float) -> str:
    """A round time in its largest unit: ``6 hours``."""
    size, name = next(entry for entry in _SPANS if seconds >= entry[0] or entry[0] == 1)
    number = round(seconds / size)
    return f"{number} {name}{'' if number == 1 else 's'}"


def ago(seconds: float) -> str:
    """``just now``, ``12 s ago``."""
    return "just now" if seconds < 1 else f"{duration(seconds)} ago"


def days(number: float) -> str:
    """``89 days``, ``1 day``, ``expired``."""
    if number < 0:
        return "expired"
    whole = int(number)
    return f"{whole}{_SPACE}{'day' if whole == 1 else 'days'}"
