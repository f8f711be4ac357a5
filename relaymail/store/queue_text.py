"""Texts of other hosts, as the queue keeps them: clipped, and fit for a column and for a terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from relaymail.store.queue_rows import Settlement
from relaymail.store.rows import clean

LONGEST: Final = 2000
"""Characters of a reply that are kept."""


def presentable(text: str) -> str:
    """``text`` as it is stored: its lines as they came, other control characters escaped, clipped."""
    if len(text) <= LONGEST and text.isprintable():
        return clean(text)
    safe = "".join(c if c.isprintable() or c == "\n" else _escaped(c) for c in clean(text[: LONGEST + 1]))
    return safe if len(safe) <= LONGEST else safe[: LONGEST - 1] + "…"


def bare(result: Settlement) -> Settlement:
    """The result without the texts of the other host."""
    return replace(result, reply=None, host=None, address=None, tls=None)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
