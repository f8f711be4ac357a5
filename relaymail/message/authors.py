"""Who a message says it is from, to the last address: for a decision, where the columns are content with what
the limits of reading leave."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final

from relaymail.message import addresses, headers
from relaymail.message.limits import Budget, Exhausted, ParseLimits
from relaymail.message.transfer import Raw

__all__ = ["Exhausted", "authors"]

_LIMITS: Final = ParseLimits(
    header_lines=sys.maxsize,
    header_bytes=sys.maxsize,
    field_bytes=sys.maxsize,
    addresses=sys.maxsize,
    seconds=10.0,
)


def authors(raw: Raw, *, clock: Callable[[], float] = time.thread_time) -> tuple[str, ...] | None:
    """Every address of every ``From:`` field, in order; ``None`` where there is no such field.

    To be called in a thread: the time is linear in the size of the header section, which the listener limits.
    Raises :class:`Exhausted` after 10 s by ``clock``.
    """
    budget = Budget(_LIMITS, clock)
    section = headers.scan(raw, 0, len(raw), frozenset({b"from"}), budget)
    values = section.all(b"from")
    if not values:
        return None
    found: list[str] = []
    for value in values:
        found += [mailbox.address for mailbox in addresses.parse(headers.text_of(value), budget)]
    return tuple(found)
