"""Waiting for the database and its tables, and bringing ours up to date."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.task import deferLater
from twisted.logger import Logger

from relaymail.process import EX_CONFIG, StartError
from relaymail.store import schema
from relaymail.store.database import Database, DatabaseError
from relaymail.store.schema.errors import SchemaError

log = Logger()

RETRY: Final = 2.0
"""Seconds between looks whether the database and its tables are there."""
NEWER_COLUMNS: Final = (
    "SmtpApiKeys.KeyPrefix",
    "UserEmailAddresses.VerificationToken",
    "UserEmailAddresses.VerificationTokenExpiresAt",
)
"""Columns that an older API does not have yet, and without which the host does."""


async def wait_for_database(database: Database, *, standalone: bool, reactor: Any) -> None:
    """Return when mail can be stored. What is lacking is logged once, until something else is.

    :param standalone: make the shared tables too; the database is ours alone.
    :raises StartError: something that no waiting will mend.
    """
    said = ""
    while (lacking := await _lacking(database, standalone)) is not None:
        if lacking != said:
            log.warn("Not ready to take mail: {lacking}", lacking=lacking)
            said = lacking
        await deferLater(reactor, RETRY)
    log.info("Ready to take mail")


async def _lacking(database: Database, standalone: bool) -> str | None:
    """What the database lacks, or ``None``."""
    try:
        await schema.upgrade(database, standalone=standalone)
        status = await schema.status(database)
    except SchemaError as error:
        raise StartError(str(error), EX_CONFIG) from error
    except DatabaseError as error:
        if database.refused is not None:
            raise StartError(database.refused, EX_CONFIG) from error
        return str(error) if standalone else f"{error} (ConnectionStrings:DefaultConnection)"
    if status.public == "ready":
        return None
    columns = [column for column in status.missing_columns if column not in NEWER_COLUMNS]
    if status.public == "partial" and status.missing_columns and not columns:
        return None
    missing = f"columns {', '.join(columns)}" if columns else "tables of the API"
    return (
        f"the database lacks {missing}; waiting for the API's migrations "
        "(or run `relaymail db upgrade --standalone` on a database of its own)"
    )
