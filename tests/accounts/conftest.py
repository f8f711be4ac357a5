"""People and keys to try accounts with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import bcrypt
import pytest
from twisted.logger import ILogObserver, globalLogPublisher

from relaymail.store.database import Database

QUICK = 4
"""bcrypt's least cost, where a test is not about time."""


@dataclass
class People:
    """Writes rows of the shared tables as the API would."""

    database: Database
    clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    async def user(self, email: str, *, age: int = 0, user_id: UUID | None = None) -> UUID:
        """A user, made ``age`` days before the first of January 2026."""
        made = user_id or uuid4()
        await self.database.execute(
            "test.user",
            'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt") '
            "VALUES (%s, %s, 'test', %s, %s)",
            (made, str(made), email, self.clock - timedelta(days=age)),
        )
        return made

    async def address(self, user: UUID, address: str, *, verified: bool = True) -> None:
        """An additional address."""
        await self.database.execute(
            "test.address",
            'INSERT INTO public."UserEmailAddresses" ("Id", "UserId", "Address", "IsVerified", "AddedAt") '
            "VALUES (%s, %s, %s, %s, now())",
            (uuid4(), user, address, verified),
        )

    async def key(
        self,
        user: UUID,
        text: str,
        *,
        prefix: str | None = "",
        scopes: str = '["smtp"]',
        key_hash: str | None = None,
        revoked: bool = False,
    ) -> UUID:
        """An API key; ``prefix`` as it should be unless given."""
        made = uuid4()
        if key_hash is None:
            key_hash = bcrypt.hashpw(text.encode(), bcrypt.gensalt(QUICK)).decode()
        await self.database.execute(
            "test.key",
            'INSERT INTO public."SmtpApiKeys" '
            '("Id", "UserId", "Name", "KeyHash", "KeyPrefix", "Scopes", "CreatedAt", "RevokedAt") '
            "VALUES (%s, %s, 'test', %s, %s, %s, now(), CASE WHEN %s THEN now() END)",
            (made, user, key_hash, text[:12] if prefix == "" else prefix, scopes, revoked),
        )
        return made


@pytest.fixture
def people(database: Database) -> People:
    """Writes users, addresses and keys into the test's database."""
    return People(database)


@pytest.fixture
def logged() -> Iterator[list[dict[str, Any]]]:
    """The log events of the test."""
    events: list[dict[str, Any]] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)
