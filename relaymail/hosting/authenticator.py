"""Checks logins: the user's e-mail address and an API key."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relaymail.hosting.key_check import KeyChecker, Overloaded
from relaymail.store.accounts import KEY_REVOKED_CHANNEL, Accounts, KeyCandidate
from relaymail.store.cache import TimedCache
from relaymail.store.database import Database, DatabaseError

log = Logger()

SCOPE = "smtp"
PREFIX_LENGTH = 12
CACHE_SECONDS = 30.0
"""How long a right key is believed without asking: the promise for keys that the API revokes."""

LOGINS_CACHED = 10_000
LAST_USED_SECONDS = 5.0
"""``LastUsedAt`` is collected this long and then written for all keys in one statement."""


class AuthenticationFailed(Exception):
    """The login is not right (``535 5.7.8``). Why is not told; an unknown user costs the same time."""


class AuthenticationUnavailable(Exception):
    """Whether the login is right cannot be told now (``454 4.7.0``): no database, or too many at once."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who has logged in, and with which key. ``email`` is spelled as the account has it."""

    user_id: UUID
    email: str
    key_id: UUID


class Authenticator:
    """Verifies logins, remembers right ones for 30 s, writes down when a key was last used.

    :param salt: key of the HMAC under which right logins are remembered; ``None`` or empty: a random one.
    :param now: the wall clock, for ``LastUsedAt``.
    """

    def __init__(
        self,
        accounts: Accounts,
        *,
        salt: bytes | None,
        reactor: Any,
        checker: KeyChecker | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._accounts = accounts
        self._salt = salt or secrets.token_bytes(32)
        self._reactor = reactor
        self._checker = checker or KeyChecker(reactor)
        self._now = now
        self._known: TimedCache[bytes, Login] = TimedCache(
            reactor, lifetime=CACHE_SECONDS, size=LOGINS_CACHED
        )
        self._in_progress: dict[bytes, list[Deferred[Login]]] = {}
        self._revocations = 0
        self._used: dict[UUID, datetime] = {}
        self._write_call: Any = None
        self._writing: Deferred[None] | None = None

    def listen(self, database: Database) -> None:
        """Hear of keys that the command line revokes: they are refused from that moment on."""
        database.listen(KEY_REVOKED_CHANNEL, self.revoked)

    def revoked(self, key_id: str) -> None:
        """Forget the logins of a key. An empty id means that revocations may have been missed: forget all."""
        self._revocations += 1
        if key_id:
            self._known.discard(lambda login: str(login.key_id) == key_id)
        else:
            self._known.clear()

    async def verify(self, login: str, password: str) -> Login:
        """Who this is.

        :param login: the user's e-mail address, in any case.
        :param password: an API key of the scope ``smtp`` that is not revoked.
        :raises AuthenticationFailed: they do not fit.
        :raises AuthenticationUnavailable: it cannot be told now.
        """
        token = self._token(login, password)
        found = self._known.get(token) or await self._joined(token, login, password)
        self.note_use(found.key_id)
        return found

    async def stop(self) -> None:
        """Take no more logins, end the threads, write what is not yet written of ``LastUsedAt``."""
        await self._checker.stop()
        self._known.clear()
        if self._write_call is not None:
            self._write_call.cancel()
            self._write_call = None
        if self._writing is not None:
            await self._writing
        await self._write_used()

    def _token(self, login: str, password: str) -> bytes:
        """What a right login is remembered under: of the key itself nothing is kept."""
        name = login.lower().encode("utf-8", "surrogatepass")
        key = password.encode("utf-8", "surrogatepass")
        # The length keeps apart what would be the same text with the border elsewhere
        return hmac.digest(self._salt, b"%d:%s%s" % (len(name), name, key), "sha256")

    async def _joined(self, token: bytes, login: str, password: str) -> Login:
        """Verify once for all who give the same login at a time: some clients open ten connections."""
        waiter: Deferred[Login] = Deferred()
        others = self._in_progress.get(token)
        if others is not None:
            others.append(waiter)
        else:
            self._in_progress[token] = [waiter]
            Deferred.fromCoroutine(self._answer(token, login, password))
        return await waiter

    async def _answer(self, token: bytes, login: str, password: str) -> None:
        """Verify and tell all who wait; one that went away does not take the answer from the others."""
        try:
            found = await self._check(token, login, password)
        except Exception as error:
            for waiter in self._in_progress.pop(token):
                waiter.errback(error)
        else:
            for waiter in self._in_progress.pop(token):
                waiter.callback(found)

    async def _check(self, token: bytes, login: str, password: str) -> Login:
        revocations = self._revocations
        try:
            candidates = await self._accounts.candidates(login, password[:PREFIX_LENGTH])
            place = await self._checker.matching(password, [candidate.key_hash for candidate in candidates])
        except DatabaseError as error:
            raise AuthenticationUnavailable("no database") from error
        except Overloaded as error:
            raise AuthenticationUnavailable("too many logins at once") from error
        if place is None:
            raise AuthenticationFailed
        found = _permitted(candidates[place])
        if revocations != self._revocations:
            # Perhaps it was this key: the rows just read do not know. Ask again rather than let it in.
            return await self._check(token, login, password)
        self._known.put(token, found)
        return found

    def note_use(self, key_id: UUID) -> None:
        """Have it written that the key was used just now, in a moment."""
        self._used[key_id] = self._now()
        if self._write_call is None and self._writing is None:
            self._write_call = self._reactor.callLater(LAST_USED_SECONDS, self._begin_writing)

    def _begin_writing(self) -> None:
        self._write_call = None
        self._writing = Deferred.fromCoroutine(self._write_used())
        self._writing.addCallback(self._written)

    def _written(self, _: None) -> None:
        self._writing = None
        if self._used and self._write_call is None:
            self._write_call = self._reactor.callLater(LAST_USED_SECONDS, self._begin_writing)

    async def _write_used(self) -> None:
        """Write what was collected; keep it for the next time where that fails."""
        used, self._used = self._used, {}
        try:
            await self._accounts.touch_keys(used)
        except DatabaseError as error:
            self._used = used | self._used
            log.warn(
                "Could not write when {count} keys were last used: {error}", count=len(used), error=error
            )


def _permitted(key: KeyCandidate) -> Login:
    """The login of a key that fits; one without the scope is as wrong as any other."""
    if SCOPE not in key.scopes:
        raise AuthenticationFailed
    return Login(key.user_id, key.email, key.key_id)
