"""What an operator wants for a destination other than for all the rest: table ``relaymail.destination``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relaymail.store.database import Database

TLSLevel = Literal["none", "opportunistic", "verified", "dane", "implicit"]


@dataclass(frozen=True, slots=True)
class DestinationOverride:
    """What is wanted; ``None``: as everywhere."""

    destination: str
    max_connections: int | None = None
    max_recipients: int | None = None
    """Of one transaction; a claim heeds it."""
    relay_host: str | None = None
    """Instead of the MX hosts; a name or an address."""
    relay_port: int | None = None
    tls_level: TLSLevel | None = None


async def overrides(database: Database) -> dict[str, DestinationOverride]:
    """All of them, by destination. Few rows: ask at each poll.

    :raises DatabaseError: the database failed.
    """
    rows = await database.query(
        "destinations.overrides",
        "SELECT destination, max_connections, max_recipients, relay_host, relay_port, tls_level"
        " FROM relaymail.destination",
    )
    return {row[0]: DestinationOverride(*row) for row in rows}
