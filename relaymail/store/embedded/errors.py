"""What can go wrong with the embedded PostgreSQL; each text is a sentence for the operator."""

from __future__ import annotations


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot be made or started."""


class EmbeddedPostgresMissing(EmbeddedPostgresError):
    """The wheel with its programs is not installed."""


class EmbeddedPostgresBusy(EmbeddedPostgresError):
    """Another process runs the same data folder; ``holder`` says what kind of one (``host``, ``command``)."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder
