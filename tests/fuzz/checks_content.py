"""The reader of messages: any bytes give columns that the database takes, in bounded time and steps."""

from __future__ import annotations

import random
import re
import time
from datetime import UTC, datetime
from typing import Final

from relaymail.message.delivered import Fixes, delivered
from relaymail.message.summary import ParseLimits, Summary, summarize
from tests.fuzz.checks_framing import BARE, cut
from tests.message.test_properties import check_columns

TRACE: Final = b"Received: from x by y; Mon, 5 Jan 2026 10:00:00 +0000\r\n"
FIXES: Final = Fixes("generated@example.test", datetime(2026, 1, 5, 10, 0, tzinfo=UTC))
_BLIND: Final = re.compile(rb"^(resent-)?bcc[ \t]*:", re.IGNORECASE | re.MULTILINE)
SMALL: Final = ParseLimits(
    header_lines=40,
    header_bytes=2000,
    field_bytes=300,
    depth=4,
    parts=12,
    near_delimiters=20,
    encoded_words=5,
    addresses=5,
    parameters=6,
    body_characters=200,
)
"""Limits that short input reaches."""

SECONDS: Final = 2.0
"""Processor time for one message of a few KiB: many thousand times what it takes."""


class _Clock:
    """Stands still, and counts how often it is looked at: once in 200 steps of the reader."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return 0.0


def check(data: bytes) -> None:
    """Read ``data`` as a message, within the limits of production and within small ones."""
    began = time.process_time()
    for limits in (ParseLimits(), SMALL):
        clock = _Clock()
        summary = summarize(data, limits=limits, clock=clock)
        check_columns(data, summary)
        # Each octet may be looked at once per level of nesting, and by a few readers
        assert clock.looks <= 20 + len(data) * 0.5, (clock.looks, len(data))
        _check_again(data, summary, limits)
    _check_delivered(data)
    assert time.process_time() - began < SECONDS + len(data) / 10_000


def _check_delivered(data: bytes) -> None:
    """What readers get of it: the same however it is read, mended once and for all, nobody hidden in it."""
    assert b"".join(delivered([data], TRACE, None)) == TRACE + data
    once = b"".join(delivered([data], b"", FIXES))
    pieces = [*cut(data, random.Random(len(data)))]
    assert b"".join(delivered(pieces, b"", FIXES)) == once
    assert b"".join(delivered([once], b"", FIXES)) == once
    assert BARE.search(once) is None
    read = summarize(once, clock=lambda: 0.0)
    assert read.has_date
    assert read.message_id is not None or read.parse_status != "complete"
    assert _BLIND.search(once.partition(b"\r\n\r\n")[0]) is None


def _check_again(data: bytes, summary: Summary, limits: ParseLimits) -> None:
    """The same bytes give the same columns, wherever they lie."""
    again = summarize(memoryview(b"x" + data)[1:], limits=limits, clock=lambda: 0.0)
    assert again == summary
