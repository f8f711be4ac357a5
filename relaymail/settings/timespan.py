"""TimeSpan text as .NET writes it, ``[d.]hh:mm:ss[.fff]``, and plain numbers of seconds."""

from __future__ import annotations

import re
from decimal import Decimal

from relaymail.settings.errors import SettingsError

TICKS = 10_000_000
"""Parts of a second .NET counts in (100 ns)."""

ALLOWED = "a TimeSpan [d.]hh:mm:ss[.fff] or a number of seconds"

_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_SPAN = re.compile(
    r"(?:(?P<days>[0-9]{1,8})[.:](?=[0-9]+:[0-9]+:[0-9]))?"
    r"(?P<hours>[0-9]{1,2}):(?P<minutes>[0-9]{1,2})"
    r"(?::(?P<seconds>[0-9]{1,2})(?:\.(?P<fraction>[0-9]{1,7}))?)?"
)


def parse_timespan(text: str) -> float:
    """Read ``text`` as seconds: ``00:15:00``, ``7.00:00:00``, ``00:00:00.25``, ``hh:mm``, ``900``, ``0.5``.

    A plain number is seconds (.NET would read it as days, which nobody means in a lockout window).
    Raises :class:`SettingsError` for anything else, also for 24 hours and more without a day part.
    """
    text = text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    match = _SPAN.fullmatch(text)
    if match is None:
        raise SettingsError("not a TimeSpan")
    days, hours, minutes, seconds = (
        int(match[part] or 0) for part in ("days", "hours", "minutes", "seconds")
    )
    if hours > 23:
        raise SettingsError("more than 23 hours; 24 hours are written with a day in front, 1.00:00:00")
    if minutes > 59 or seconds > 59:
        raise SettingsError("more than 59 minutes or seconds")
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    fraction = int((match["fraction"] or "").ljust(7, "0"))
    return (whole * TICKS + fraction) / TICKS


def format_timespan(seconds: float) -> str:
    """Write ``seconds`` (0 or more, to 100 ns) as .NET does: ``7.00:00:00``, ``00:00:00.5000000``."""
    # Decimal(seconds) is exact: multiplying the float would lose ticks in long spans
    ticks = round(Decimal(seconds) * TICKS)
    whole, fraction = divmod(ticks, TICKS)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    text = f"{hour:02}:{minute:02}:{second:02}"
    if days:
        text = f"{days}.{text}"
    return f"{text}.{fraction:07}" if fraction else text
