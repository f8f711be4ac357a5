"""What a check is and what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from relaymail.doctor.page import Page

if TYPE_CHECKING:
    from relaymail.doctor.context import Context

LIMIT = 10.0
"""Seconds a check may take, unless it says otherwise."""


class Severity(Enum):
    """How much it matters that a check fails; the value is the word in reports."""

    INFO = "info"
    """Could be better; nothing is broken."""
    WARN = "warn"
    """Something is lost, or will break."""
    ERROR = "error"
    """Mail is not taken, not stored, not sent, or not for long."""

    @property
    def rank(self) -> int:
        """0 is the least."""
        return list(Severity).index(self)


class State(Enum):
    """How a check ended; the value is the word in reports."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    SKIP = "skip"
    """It could not look, or there was nothing to look at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look came to. No secret is in it; text of peers is made safe where it is shown."""

    state: State
    summary: str
    """One sentence without its full stop."""
    details: tuple[str, ...] = ()
    """What was seen, a line each."""
    severity: Severity | None = None
    """Of this failure, where it matters more or less than the check's failures do."""
    publish: tuple[str, ...] = ()
    """DNS records to publish, as lines of a zone file."""
    data: Mapping[str, object] = field(default_factory=dict)
    """What was seen, for programs."""


def passed(summary: str, *details: str, **data: object) -> Finding:
    """All is well."""
    return Finding(State.PASS, summary, details, data=data)


def failed(
    summary: str,
    *details: str,
    severity: Severity | None = None,
    publish: tuple[str, ...] = (),
    **data: object,
) -> Finding:
    """Something is to be mended."""
    return Finding(State.FAIL, summary, details, severity, publish, data)


class Skipped(Exception):
    """Raised by a check that cannot look or has nothing to look at; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """A named check with its page."""

    id: str
    """``check.AREA.NAME``."""
    title: str
    severity: Severity
    """Of its failures, unless a finding says otherwise."""
    tags: tuple[str, ...]
    page: Page
    look: Callable[[Context], Awaitable[Finding]]
    """Looks now; raises :exc:`Skipped`. It may hang: it is cancelled when its time is over."""
    limit: float = LIMIT
    """Seconds it may take."""

    @property
    def area(self) -> str:
        """The part of the id between its dots."""
        return self.id.split(".")[1]

    @property
    def plugin(self) -> str:
        """The id of the group it belongs to."""
        return f"relaymail.doctor.{self.area}"
