"""What a check is and what it comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from twisted.python.failure import Failure


class Status(Enum):
    """How something is; the value is the word in the report."""

    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    UNHEALTHY = "Unhealthy"

    @property
    def severity(self) -> int:
        """0 is well, 2 is worst; as in the metric ``health.check.status``."""
        return _SEVERITY[self]


_SEVERITY = {status: n for n, status in enumerate(Status)}


def worst(statuses: Sequence[Status]) -> Status:
    """The worst of ``statuses``; of none it is Healthy."""
    return max(statuses, key=lambda status: status.severity, default=Status.HEALTHY)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a check found.

    ``description`` and ``data`` are shown to anyone who asks: no credentials, no paths, no exception's text.
    """

    status: Status
    description: str | None = None
    data: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A named check."""

    name: str
    tags: tuple[str, ...]
    run: Callable[[], Awaitable[Result]]
    """Looks now. It may hang: it is cancelled when its time is over."""
    shared: float = 0.0
    """Seconds for which a result is given to others who ask, in place of looking again."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """A check's result in a report."""

    name: str
    tags: tuple[str, ...]
    duration: float
    """Seconds."""
    result: Result
    failure: Failure | None = None
    """The exception the check ended with, for the log; its result does not tell what it was."""

    def as_json(self) -> dict[str, object]:
        """As the contract of the health endpoint has it."""
        entry: dict[str, object] = {
            "name": self.name,
            "status": self.result.status.value,
            "duration": milliseconds(self.duration),
            "description": self.result.description,
            "tags": list(self.tags),
        }
        if self.result.data:
            entry["data"] = dict(self.result.data)
        return entry


@dataclass(frozen=True, slots=True)
class Report:
    """What all checks asked for came to."""

    checks: tuple[CheckReport, ...] = ()
    duration: float = 0.0
    """Seconds, from the question to the last check's end."""

    @property
    def status(self) -> Status:
        """That of the worst check."""
        return worst([check.result.status for check in self.checks])

    def as_json(self) -> dict[str, object]:
        """As the contract of the health endpoint has it."""
        return {
            "status": self.status.value,
            "totalDuration": milliseconds(self.duration),
            "checks": [check.as_json() for check in self.checks],
        }


def milliseconds(seconds: float) -> float:
    """Milliseconds with two decimals."""
    return round(seconds * 1000, 2)
