"""What an administrator does to accounts: users, additional addresses, grants to send, API keys.

Writes the shared tables the way the API does, so that users and keys made here work there too.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import bcrypt
from twisted.internet.threads import deferToThread

from relaymail.store.accounts import KEY_REVOKED_CHANNEL, UNDEFINED_COLUMN, parse_scopes
from relaymail.store.database import Database, DatabaseError
from relaymail.store.scram import UserSalt, derive, salt_of_user

KEY_BYTES = 32
BCRYPT_COST = 11
PREFIX_LENGTH = 12
LONGEST_KEY_NAME = 100
LONGEST_DISPLAY_NAME = 500

_USER_COLUMNS = 'u."Id", u."Email", u."DisplayName", u."CreatedAt", u."LastLoginAt"'

# Who counts as having an address is whom mail for it would reach: an unverified claim reserves nothing
_TAKEN = """
    SELECT u."Id", u."Email" FROM public."Users" u
    WHERE lower(u."Email") = lower(%s)
       OR u."Id" IN (SELECT a."UserId" FROM public."UserEmailAddresses" a
                     WHERE lower(a."Address") = lower(%s) AND a."IsVerified")
    ORDER BY u."CreatedAt", u."Id"
"""

_INSERT_USER = """
    INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "DisplayName", "CreatedAt")
    VALUES (%s, %s, 'relaymail', %s, %s, now()) RETURNING "CreatedAt"
"""

_INSERT_VERIFIER = """
    INSERT INTO relaymail.scram_verifier (key_id, user_id, stored_key, server_key) VALUES (%s, %s, %s, %s)
"""

# One statement, so that there is no key without its verifier
_INSERT_KEY = f"""
    WITH key AS (
        INSERT INTO public."SmtpApiKeys"
            ("Id", "UserId", "Name", "KeyHash", "Scopes", "CreatedAt", "KeyPrefix")
        VALUES (%s, %s, %s, %s, %s, now(), %s)
    ) {_INSERT_VERIFIER}
"""

_INSERT_KEY_WITHOUT_PREFIX = f"""
    WITH key AS (
        INSERT INTO public."SmtpApiKeys" ("Id", "UserId", "Name", "KeyHash", "Scopes", "CreatedAt")
        VALUES (%s, %s, %s, %s, %s, now())
    ) {_INSERT_VERIFIER}
"""

# Through JSON, so that a table without the column (an older API) answers null instead of an error
_KEY_PREFIX = "to_jsonb(k) ->> 'KeyPrefix'"

_LIST_KEYS = f"""
    SELECT k."Id", k."UserId", u."Email", k."Name", {_KEY_PREFIX}, k."Scopes",
           k."CreatedAt", k."LastUsedAt", k."RevokedAt"
    FROM public."SmtpApiKeys" k JOIN public."Users" u ON u."Id" = k."UserId"
"""

# NOTIFY leaves with the commit: no host hears of a revocation that did not happen
_REVOKE_KEY = """
    WITH revoked AS (
        UPDATE public."SmtpApiKeys" SET "RevokedAt" = now() WHERE "Id" = %s AND "RevokedAt" IS NULL
        RETURNING "Id", "RevokedAt"
    ), forgotten AS (
        DELETE FROM relaymail.scram_verifier WHERE key_id = %s
    )
    SELECT "RevokedAt", pg_notify(%s, "Id"::text) FROM revoked
"""


class AccountError(Exception):
    """What was asked cannot be done; the text is a sentence for the administrator."""


@dataclass(frozen=True, slots=True)
class User:
    """A row of ``Users``."""

    id: UUID
    email: str
    display_name: str | None
    created_at: datetime
    last_login_at: datetime | None


@dataclass(frozen=True, slots=True)
class AdditionalAddress:
    """A row of ``UserEmailAddresses``."""

    address: str
    verified: bool
    added_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """An address (``@domain``: a whole domain) that a user may send as."""

    address: str
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. ``key`` is the secret, and nobody can ever read it again."""

    key: str
    id: UUID
    prefix: str
    user: str
    name: str
    scopes: list[str]


@dataclass(frozen=True, slots=True)
class Key:
    """A row of ``SmtpApiKeys`` without its hash."""

    id: UUID
    user_id: UUID
    user: str
    name: str
    prefix: str | None
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


class Administration:
    """Changes accounts. Raises :class:`AccountError`, and ``DatabaseError`` where the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_user(self, email: str, display_name: str | None) -> User:
        """Make a user whose login name is ``email``; refuses an address that someone already has."""
        if display_name is not None and len(display_name) > LONGEST_DISPLAY_NAME:
            raise AccountError(f"A display name has at most {LONGEST_DISPLAY_NAME} characters.")
        await self._refuse_taken(email)
        user_id = uuid4()
        rows = await self._database.query(
            "administration.create_user", _INSERT_USER, (user_id, str(user_id), email, display_name)
        )
        return User(user_id, email, display_name, rows[0][0], None)

    async def list_users(self) -> list[User]:
        """All users, oldest first."""
        rows = await self._database.query(
            "administration.list_users",
            f'SELECT {_USER_COLUMNS} FROM public."Users" u ORDER BY u."CreatedAt", u."Id"',
        )
        return [User(*row) for row in rows]

    async def find_user(self, user: str) -> User:
        """The user with this id or e-mail address (any case)."""
        wanted = _as_uuid(user)
        condition, value = ('u."Id" = %s', wanted) if wanted else ('lower(u."Email") = lower(%s)', user)
        rows = await self._database.query(
            "administration.find_user",
            f'SELECT {_USER_COLUMNS} FROM public."Users" u WHERE {condition} ORDER BY u."CreatedAt", u."Id"',
            (value,),
        )
        if not rows:
            raise AccountError(f"There is no user {user}: `relaymail user list` shows all.")
        if len(rows) > 1:
            raise AccountError(
                f"Several users have the address {user}: give the id that `relaymail user list` shows."
            )
        return User(*rows[0])

    async def add_address(self, user: User, address: str, verified: bool) -> None:
        """Give ``user`` an additional address; only a verified one receives and may be sent as."""
        await self._refuse_taken(address)
        added = await self._database.execute(
            "administration.add_address",
            """
            INSERT INTO public."UserEmailAddresses" ("Id", "UserId", "Address", "IsVerified", "AddedAt")
            SELECT %s, %s, %s, %s, now() WHERE NOT EXISTS (
                SELECT FROM public."UserEmailAddresses" WHERE "UserId" = %s AND lower("Address") = lower(%s))
            """,
            (uuid4(), user.id, address, verified, user.id, address),
        )
        if not added:
            raise AccountError(f"{user.email} has the address {address} already, unverified: verify it.")

    async def list_addresses(self, user: User) -> list[AdditionalAddress]:
        """The additional addresses of ``user``, oldest first."""
        rows = await self._database.query(
            "administration.list_addresses",
            'SELECT "Address", "IsVerified", "AddedAt" FROM public."UserEmailAddresses" WHERE "UserId" = %s '
            'ORDER BY "AddedAt", "Address"',
            (user.id,),
        )
        return [AdditionalAddress(*row) for row in rows]

    async def verify_address(self, user: User, address: str) -> None:
        """Take an additional address as proven; refuses where another user has it."""
        taken = await self._taken(address)
        if any(owner != user.id for owner, _ in taken):
            raise AccountError(f"{address} belongs to {taken[0][1]}: remove it there first.")
        changed = await self._database.execute(
            "administration.verify_address",
            'UPDATE public."UserEmailAddresses" SET "IsVerified" = true '
            'WHERE "UserId" = %s AND lower("Address") = lower(%s)',
            (user.id, address),
        )
        if not changed:
            raise AccountError(f"{user.email} has no additional address {address}.")

    async def remove_address(self, user: User, address: str) -> None:
        """Take an additional address away from ``user``."""
        removed = await self._database.execute(
            "administration.remove_address",
            'DELETE FROM public."UserEmailAddresses" WHERE "UserId" = %s AND lower("Address") = lower(%s)',
            (user.id, address),
        )
        if not removed:
            raise AccountError(f"{user.email} has no additional address {address}.")

    async def grant(self, user: User, address: str) -> None:
        """Let ``user`` send as ``address``, or as any address of a domain, ``@domain``. Twice is once."""
        await self._database.execute(
            "administration.grant",
            "INSERT INTO relaymail.sender_grant (user_id, address) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (user.id, address.lower()),
        )

    async def list_grants(self, user: User) -> list[Grant]:
        """What ``user`` may send as beside the own addresses."""
        rows = await self._database.query(
            "administration.list_grants",
            "SELECT address, granted_at FROM relaymail.sender_grant WHERE user_id = %s ORDER BY address",
            (user.id,),
        )
        return [Grant(*row) for row in rows]

    async def remove_grant(self, user: User, address: str) -> None:
        """Take a grant back."""
        removed = await self._database.execute(
            "administration.remove_grant",
            "DELETE FROM relaymail.sender_grant WHERE user_id = %s AND address = %s",
            (user.id, address.lower()),
        )
        if not removed:
            raise AccountError(f"{user.email} has no grant for {address}.")

    async def create_key(self, user: User, name: str, scopes: Sequence[str]) -> NewKey:
        """Make an API key: 32 random bytes in base64, of which only the bcrypt hash and a SCRAM verifier are
        kept."""
        if not 0 < len(name) <= LONGEST_KEY_NAME:
            raise AccountError(f"The name of a key has 1 to {LONGEST_KEY_NAME} characters.")
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        new = NewKey(key, uuid4(), key[:PREFIX_LENGTH], user.email, name, list(scopes))
        salt = await salt_of_user(self._database, user.id, user.email)
        hashed, verifier = await deferToThread(_derive, key, salt)
        row = (new.id, user.id, name, hashed, json.dumps(new.scopes))
        of_key = (new.id, user.id, *verifier)
        try:
            await self._database.execute(
                "administration.create_key", _INSERT_KEY, (*row, new.prefix, *of_key)
            )
        except DatabaseError as error:
            if error.sqlstate != UNDEFINED_COLUMN:
                raise
            await self._database.execute(
                "administration.create_key", _INSERT_KEY_WITHOUT_PREFIX, (*row, *of_key)
            )
        return new

    async def list_keys(self, user: User | None = None) -> list[Key]:
        """The keys of ``user`` or of everyone, oldest first, revoked ones among them."""
        condition, values = ('WHERE k."UserId" = %s', (user.id,)) if user else ("", ())
        rows = await self._database.query(
            "administration.list_keys", f'{_LIST_KEYS} {condition} ORDER BY k."CreatedAt", k."Id"', values
        )
        return [_key(row) for row in rows]

    async def revoke_key(self, key: str) -> Key:
        """Revoke the key with this id or 12-character prefix, and tell every host at once.

        Revoking a revoked key again is no error, so that a script may repeat itself.
        """
        wanted = _as_uuid(key)
        condition, value = ('k."Id" = %s', wanted) if wanted else (f"{_KEY_PREFIX} = %s", key)
        rows = await self._database.query(
            "administration.find_key", f"{_LIST_KEYS} WHERE {condition}", (value,)
        )
        if not rows:
            raise AccountError("There is no key with this id or prefix: `relaymail key list` shows all.")
        if len(rows) > 1:
            raise AccountError("Several keys begin like this: give the id that `relaymail key list` shows.")
        found = _key(rows[0])
        revoked = await self._database.query(
            "administration.revoke_key", _REVOKE_KEY, (found.id, found.id, KEY_REVOKED_CHANNEL)
        )
        return replace(found, revoked_at=revoked[0][0]) if revoked else found

    async def _taken(self, address: str) -> list[tuple[UUID, str]]:
        """Who has ``address``: ids and e-mail addresses of users, oldest first."""
        rows = await self._database.query("administration.taken", _TAKEN, (address, address))
        return [(user_id, email) for user_id, email in rows]

    async def _refuse_taken(self, address: str) -> None:
        taken = await self._taken(address)
        if taken:
            raise AccountError(f"{address} already belongs to {taken[0][1]}.")


def _derive(key: str, salt: UserSalt) -> tuple[str, tuple[bytes, bytes]]:
    """In a thread: the bcrypt hash of a key, and ``StoredKey`` and ``ServerKey`` of SCRAM."""
    # Revision 2a is what the API writes; for keys of ASCII it is the same function as 2b
    hashed = bcrypt.hashpw(key.encode(), bcrypt.gensalt(BCRYPT_COST, prefix=b"2a"))
    return hashed.decode(), derive(key, salt)


def _key(row: tuple[Any, ...]) -> Key:
    key_id, user_id, user, name, prefix, scopes, *times = row
    return Key(key_id, user_id, user, name, prefix, sorted(parse_scopes(scopes)), *times)


def _as_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
