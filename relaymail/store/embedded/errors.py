"""What can go wrong with the embedded PostgreSQL; each text is a sentence for the operator."""

from __future__ import annotations

from pathlib import Path


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be made or started."""


class EmbeddedPostgresMissing(EmbeddedPostgresError):
    """The wheel with its programs is not installed."""


class EmbeddedPostgresAbsent(EmbeddedPostgresError):
    """Nobody has made a database in the data folder yet."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"There is none in the data folder {root}: a host makes it when it starts, and"
            " `relaymail db upgrade` does. Is the folder the right one (--data or Data:Directory)?"
        )


class EmbeddedPostgresBusy(EmbeddedPostgresError):
    """Another process runs the same data folder; ``holder`` says what kind of one (``host``, ``command``)."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder
