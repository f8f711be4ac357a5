"""What SCRAM-SHA-256 logins are answered with: salts, and what is kept of keys (RFC 5802, RFC 7677).

A SCRAM client names the user, is told a salt and a number of iterations, and proves that it has a key
without saying which. So the salt belongs to the user and not to the key, and the proof is held against each
live key of the user.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from relaymail.store.accounts import LOOKUP_TIMEOUT, parse_scopes, storable
from relaymail.store.database import Database

DIGEST: Final = "sha256"

ITERATIONS: Final = 4096
"""The least that RFC 7677 4 allows. More would slow down guessing, but nobody guesses 32 random bytes; it
would only cost the clients."""

SALT_OCTETS: Final = 16

KEYS_TRIED: Final = 100
"""Most keys of a user a proof is held against, the newest first. One costs microseconds, not a bcrypt; and a
client that cannot log in with SCRAM does not fall back to PLAIN: the limit must be beyond what a person
has."""

# The oldest user with the name decides, as for mail
_SALTING = """
    SELECT known.secret, lower(%s), chosen.salt, chosen.iterations
    FROM relaymail.scram_secret known LEFT JOIN LATERAL (
        SELECT s.salt, s.iterations
        FROM public."Users" u JOIN relaymail.scram_salt s ON s.user_id = u."Id"
        WHERE lower(u."Email") = lower(%s)
        ORDER BY u."CreatedAt", u."Id" LIMIT 1
    ) chosen ON true
"""

_USERS_SALTING = """
    SELECT known.secret, lower(%s), chosen.salt, chosen.iterations
    FROM relaymail.scram_secret known LEFT JOIN relaymail.scram_salt chosen ON chosen.user_id = %s
"""

_KEEP_SALTING = """
    INSERT INTO relaymail.scram_salt (user_id, salt, iterations) VALUES (%s, %s, %s)
    ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id
    RETURNING salt, iterations
"""

_VERIFIERS = """
    SELECT k."Id", k."UserId", u."Email", k."Scopes", v.stored_key, v.server_key
    FROM public."Users" u
    JOIN public."SmtpApiKeys" k ON k."UserId" = u."Id"
    JOIN relaymail.scram_verifier v ON v.key_id = k."Id"
    WHERE lower(u."Email") = lower(%s) AND k."RevokedAt" IS NULL
    ORDER BY k."CreatedAt" DESC
    LIMIT %s
"""

_LACKING = """
    SELECT k."Scopes", count(*)
    FROM public."SmtpApiKeys" k
    WHERE k."RevokedAt" IS NULL
      AND NOT EXISTS (SELECT FROM relaymail.scram_verifier v WHERE v.key_id = k."Id")
    GROUP BY k."Scopes"
"""


@dataclass(frozen=True, slots=True)
class UserSalt:
    """What all keys of a user are derived with; ``iterations`` of PBKDF2."""

    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class Verifier:
    """A live key, and what is kept of it for SCRAM: neither tells the key nor lets one log in as a client."""

    key_id: UUID
    user_id: UUID
    email: str
    scopes: frozenset[str]
    stored_key: bytes
    server_key: bytes


class ScramKeys:
    """Looks up what SCRAM needs. Raises :class:`~relaymail.store.database.DatabaseError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def salt(self, login: str) -> UserSalt:
        """The salt of the user whose e-mail address is ``login`` in any case; of a name nobody has, too."""
        # No user has a name that cannot be stored; what it gets does not matter
        name = login if storable(login) else ""
        rows = await self._database.query("scram.salt", _SALTING, (name, name), timeout=LOOKUP_TIMEOUT)
        secret, lower, salt, iterations = rows[0]
        return _made_up(secret, lower) if salt is None else UserSalt(salt, iterations)

    async def verifiers(self, login: str) -> list[Verifier]:
        """The keys, revoked ones left out, that ``login`` may be using, newest first."""
        if not storable(login):
            return []
        rows = await self._database.query(
            "scram.verifiers", _VERIFIERS, (login, KEYS_TRIED), timeout=LOOKUP_TIMEOUT
        )
        return [
            Verifier(key_id, user_id, email, parse_scopes(scopes), stored_key, server_key)
            for key_id, user_id, email, scopes, stored_key, server_key in rows
        ]

    async def lacking(self, scope: str) -> int:
        """How many live keys of this scope cannot log in with SCRAM: the API has made them, or an older
        relaymail."""
        rows = await self._database.query("scram.lacking", _LACKING)
        return sum(count for scopes, count in rows if scope in parse_scopes(scopes))


async def salt_of_user(database: Database, user_id: UUID, email: str) -> UserSalt:
    """The salt of this user, made and kept where there is none yet."""
    rows = await database.query("scram.users_salt", _USERS_SALTING, (email, user_id))
    secret, lower, salt, iterations = rows[0]
    if salt is not None:
        return UserSalt(salt, iterations)
    # The one that the name would get if nobody had it: so the first key does not change what others see
    made = _made_up(secret, lower)
    kept = await database.query("scram.keep_salt", _KEEP_SALTING, (user_id, made.salt, made.iterations))
    return UserSalt(*kept[0])


def derive(key: str, salt: UserSalt) -> tuple[bytes, bytes]:
    """``StoredKey`` and ``ServerKey`` of a key (RFC 5802 3). Takes milliseconds: run it in a thread.

    SASLprep would change nothing about a key, which is base64.
    """
    salted = hashlib.pbkdf2_hmac(DIGEST, key.encode("ascii"), salt.salt, salt.iterations)
    stored_key = hashlib.new(DIGEST, hmac.digest(salted, b"Client Key", DIGEST)).digest()
    return stored_key, hmac.digest(salted, b"Server Key", DIGEST)


def _made_up(secret: bytes, name: str) -> UserSalt:
    return UserSalt(hmac.digest(secret, name.encode(), DIGEST)[:SALT_OCTETS], ITERATIONS)
