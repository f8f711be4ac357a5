"""How far a message is read, and the account of one reading: its notes, its steps and its time.

What lies beyond a limit is left out of the columns, never refused: the raw message keeps every byte.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

READER = "reader 1"
"""Names this reader in every status but ``complete``, so that a later one knows what to read again."""

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Bounds of one reading. Counts are per message unless the name says otherwise."""

    header_lines: int = 2_000
    """Physical lines of one header section."""
    header_bytes: int = 1 * MIB
    """Octets of one header section."""
    field_bytes: int = 64 * KIB
    """Octets of one unfolded field body."""
    depth: int = 100
    """Multiparts inside multiparts."""
    parts: int = 1_000
    """Body parts, containers included."""
    near_delimiters: int = 20_000
    """Places that begin like a delimiter of a multipart and are none."""
    encoded_words: int = 1_000
    """Encoded words of one field (RFC 2047)."""
    addresses: int = 2_000
    """Addresses of one field."""
    parameters: int = 1_000
    """Parameters of one field, RFC 2231 pieces counted each."""
    body_characters: int = 8 * MIB
    """Characters of each text column."""
    seconds: float = 2.0
    """Processor time for the whole reading: what is read of a message is the same on a busy machine."""


class Exhausted(Exception):
    """The time, or another limit of the whole reading, is used up; what was found so far is kept."""


class Budget:
    """The account of one reading.

    ``steps`` counts the turns of every loop whose length a sender chooses; it is what the tests hold against
    the size of the message. The clock is looked at once in a few hundred steps.
    """

    __slots__ = ("_clock", "_deadline", "_near_delimiters", "_next_look", "_notes", "limits", "steps")

    _STRIDE = 200

    def __init__(self, limits: ParseLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.steps = 0
        self._clock = clock
        self._deadline = clock() + limits.seconds
        self._next_look = self._STRIDE
        self._near_delimiters = 0
        self._notes: dict[str, None] = {}

    def step(self, count: int = 1) -> None:
        """Account for ``count`` turns of a loop. Raises :class:`Exhausted` when the time is used up."""
        self.steps += count
        if self.steps >= self._next_look:
            self._next_look = self.steps + self._STRIDE
            self.look()

    def look(self) -> None:
        """Look at the clock now. Raises :class:`Exhausted` when the time is used up."""
        if self._clock() > self._deadline:
            self.note(f"time over {self.limits.seconds:g} s")
            raise Exhausted

    def near_delimiter(self) -> None:
        """Account for a delimiter that was none, which each container looks at. Raises :class:`Exhausted`."""
        self.step()
        self._near_delimiters += 1
        if self._near_delimiters > self.limits.near_delimiters:
            self.note(f"near delimiters over {self.limits.near_delimiters}")
            raise Exhausted

    def note(self, what: str) -> None:
        """Remember that something was left out, and why (``parts over 1000``)."""
        self._notes[what] = None

    @property
    def status(self) -> str:
        """``complete``, or what was left out: ``limited: parts over 1000 (reader 1)``."""
        if not self._notes:
            return "complete"
        return f"limited: {', '.join(self._notes)} ({READER})"
