"""The small drawings of the status page. SVG without style attributes: its policy would not let them in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from relaymail.health.history import Step
from relaymail.health.result import Status

WIDTH: Final = 4
"""Units of the drawing for a bar and the gap behind it."""
GAP: Final = 1
HEIGHT: Final = 28
LEAST: Final = 4
"""Units of the lowest bar: what ran at all is seen."""
SLOWEST: Final = 5.0
"""Seconds that fill the height."""

_ICONS: Final = {
    Status.HEALTHY: "M5 10.5l3.5 3.5L15 7",
    Status.DEGRADED: "M10 5v6.5M10 15v.01",
    Status.UNHEALTHY: "M6 6l8 8M14 6l-8 8",
}
_COLOURS: Final = {Status.HEALTHY: "1a7f37", Status.DEGRADED: "bf8700", Status.UNHEALTHY: "cf222e"}


def icon(status: Status) -> str:
    """A sign for a status, told apart by more than colour. The word stands beside it."""
    return (
        f'<svg class="icon {status.value.lower()}" viewBox="0 0 20 20" aria-hidden="true">'
        f'<circle cx="10" cy="10" r="10"/><path d="{_ICONS[status]}"/></svg>'
    )


def favicon(status: Status) -> str:
    """The sign as the address of a picture."""
    circle = f"<circle cx='10' cy='10' r='10' fill='%23{_COLOURS[status]}'/>"
    line = (
        f"<path d='{_ICONS[status]}' fill='none' stroke='white' stroke-width='2.5' stroke-linecap='round'/>"
    )
    return (
        f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 20 20'>{circle}{line}</svg>"
    )


def checks_strip(steps: Sequence[Step | None], text: str) -> str:
    """The last hours of a check: a bar for each step, the colour its worst status, the height its slowest run
    on a logarithmic scale."""
    paths = []
    for status in Status:
        bars = [
            _bar(n, _height_of(step.slowest))
            for n, step in enumerate(steps)
            if step is not None and step.worst is status
        ]
        if bars:
            paths.append(f'<path class="{status.value.lower()}" d="{"".join(bars)}"/>')
    return _strip(len(steps), "".join(paths), text)


def rate_strip(rates: Sequence[float | None], text: str) -> str:
    """The last hours of something counted; the highest bar fills the height."""
    highest = max((rate for rate in rates if rate is not None), default=0.0) or 1.0
    bars = [
        _bar(n, max(1, round(HEIGHT * rate / highest))) for n, rate in enumerate(rates) if rate is not None
    ]
    return _strip(len(rates), f'<path class="count" d="{"".join(bars)}"/>', text)


def _height_of(seconds: float) -> int:
    share = math.log1p(seconds * 1000) / math.log1p(SLOWEST * 1000)
    return max(LEAST, min(HEIGHT, round(HEIGHT * share)))


def _bar(n: int, height: int) -> str:
    return f"M{n * WIDTH} {HEIGHT}v-{height}h{WIDTH - GAP}v{height}z"


def _strip(steps: int, drawing: str, text: str) -> str:
    """``text`` is what it says to those who do not see it; it must be free of ``<``, ``&`` and quotes."""
    width = steps * WIDTH - GAP
    return (
        f'<svg class="strip" viewBox="0 0 {width} {HEIGHT}" preserveAspectRatio="none" role="img"'
        f' aria-label="{text}"><title>{text}</title>'
        f'<path class="ground" d="M0 {HEIGHT}v-1h{width}v1z"/>{drawing}</svg>'
    )
