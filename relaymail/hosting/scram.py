"""SCRAM logins (RFC 5802), and whether they can be offered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from relaymail.hosting.authenticator import SCOPE, AuthenticationFailed, AuthenticationUnavailable
from relaymail.store.database import DatabaseError
from relaymail.store.scram import ScramKeys, UserSalt, Verifier

log = Logger()

CHECK_INTERVAL: Final = 180.0
"""Seconds between looks whether every key can log in with SCRAM."""

_NOBODYS_KEY: Final = bytes(32)


class ScramLogins:
    """Answers SCRAM logins from what is kept of keys.

    :param used: hears of the key of each login.
    """

    def __init__(self, keys: ScramKeys, used: Callable[[UUID], None]) -> None:
        self._keys = keys
        self.used = used

    async def salt(self, login: str) -> UserSalt:
        """What the keys of ``login`` are derived with; a name nobody has is answered alike.

        :raises AuthenticationUnavailable: it cannot be told now.
        """
        try:
            return await self._keys.salt(login)
        except DatabaseError as error:
            raise AuthenticationUnavailable("no database") from error

    async def key(self, login: str, fits: Callable[[bytes], bool]) -> Verifier:
        """The key that ``fits`` holds for: live at this moment, and of the scope for sending mail.

        :raises AuthenticationFailed: there is none. Why is not told.
        :raises AuthenticationUnavailable: it cannot be told now.
        """
        try:
            verifiers = await self._keys.verifiers(login)
        except DatabaseError as error:
            raise AuthenticationUnavailable("no database") from error
        if not verifiers:
            fits(_NOBODYS_KEY)  # the same work for a name that nobody has
        found = [verifier for verifier in verifiers if fits(verifier.stored_key)]
        if not found or SCOPE not in found[0].scopes:
            raise AuthenticationFailed
        return found[0]


class ScramOffer:
    """Whether SCRAM is offered: only while every live key can log in with it.

    A client that is offered SCRAM chooses it and does not fall back to PLAIN when it fails, so a key of which
    there is no verifier (the API has made it, or a relaymail before SCRAM) would be locked out.
    """

    def __init__(self, keys: ScramKeys, *, reactor: Any) -> None:
        self._keys = keys
        self._offered = False
        self._lacking = 0
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def offered(self) -> bool:
        """Whether EHLO lists it."""
        return self._offered

    def start(self) -> None:
        """Look now, and every few minutes."""
        self._looking.start(CHECK_INTERVAL)

    async def stop(self) -> None:
        """Look no more."""
        if self._looking.running:
            self._looking.stop()

    async def look(self) -> None:
        """Count the keys that lack a verifier; while the database does not answer nothing changes."""
        try:
            lacking = await self._keys.lacking(SCOPE)
        except DatabaseError as error:
            log.debug("Cannot count the keys without a SCRAM verifier: {why}", why=str(error))
            return
        if lacking and lacking != self._lacking:
            log.warn(
                "Smtp:Scram is on, but SCRAM is not offered: {count} API keys have no verifier and could not"
                " log in with a client that chooses it. Replace them by keys of `relaymail key create`",
                count=lacking,
            )
        if not lacking and not self._offered:
            log.info("SCRAM is offered: every API key has a verifier")
        self._lacking = lacking
        self._offered = not lacking
