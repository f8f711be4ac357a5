"""What the database can fail with, in our words: no driver's exception leaves this package."""

from __future__ import annotations


class DatabaseError(Exception):
    """PostgreSQL answered a statement with an error, or there was no answer.

    ``sqlstate`` is the five-character code where the server (or the driver) gave one. The text never holds
    a value of the statement.
    """

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate

    def is_of(self, *classes: str) -> bool:
        """Whether the SQLSTATE is of one of these classes: begins with one of these two characters."""
        return self.sqlstate is not None and self.sqlstate.startswith(classes)

    @property
    def blames_values(self) -> bool:
        """Whether a column cannot hold what was to go into it."""
        return self.is_of("22", "54")


class DatabaseUnavailable(DatabaseError):
    """No connection was to be had, the deadline passed, or the connection was lost before COMMIT was sent.

    Nothing of the call was stored.
    """


class CommitUnknown(DatabaseUnavailable):
    """The connection was lost, or the deadline passed, between sending COMMIT and reading its answer.

    The transaction may or may not be stored. A writing statement outside a transaction is its own COMMIT.
    """
