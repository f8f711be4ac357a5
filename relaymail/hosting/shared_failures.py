"""Failed logins counted by all hosts on a database together: more hosts are no more guesses.

Each host tells the others by NOTIFY and keeps the counts in memory; nothing is stored. A host that cannot
hear for a while counts on by itself, and one that starts begins with nothing.
"""

from __future__ import annotations

from itertools import islice
from typing import Final
from uuid import uuid4

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relaymail.hosting.login_limiter import FailedLoginLimiter
from relaymail.store.database import Database, DatabaseError

log = Logger()

CHANNEL: Final = "relaymail_failed_login"
CLIENTS_TOLD: Final = 50
"""In one NOTIFY, whose payload holds 8000 octets."""
CLIENTS_WAITING: Final = 10_000
"""To be told of; more are not, or a database that is away would cost memory."""
TIMEOUT: Final = 5.0


class _News(msgspec.Struct):
    """What has happened at a host: a success wipes out what was counted, and failures come behind it."""

    host: str
    succeeded: list[str]
    failed: dict[str, int]


class SharedFailures:
    """Keeps the limiters of all hosts alike."""

    def __init__(self, limiter: FailedLoginLimiter, database: Database) -> None:
        self._limiter = limiter
        self._database = database
        self._host = uuid4().hex
        self._succeeded: dict[str, None] = {}
        self._failed: dict[str, int] = {}
        self._telling: Deferred[None] | None = None

    def start(self) -> None:
        """Begin to tell and to hear."""
        self._limiter.tell = self._happened
        self._database.listen(CHANNEL, self._heard)

    async def stop(self) -> None:
        """Tell no more, but for what is on its way."""
        self._limiter.tell = None
        if self._telling is not None:
            await self._telling

    def _happened(self, network: str, failed: bool) -> None:
        if len(self._failed) + len(self._succeeded) >= CLIENTS_WAITING:
            return
        if failed:
            self._failed[network] = self._failed.get(network, 0) + 1
        else:
            self._failed.pop(network, None)
            self._succeeded[network] = None
        if self._telling is None:
            telling = self._telling = Deferred.fromCoroutine(self._tell())
            telling.addErrback(lambda failure: log.failure("Telling of failed logins ended", failure))
            telling.addCallback(self._told)

    def _told(self, _: None) -> None:
        self._telling = None

    async def _tell(self) -> None:
        """Tell until there is nothing more; what happens meanwhile goes together into the next NOTIFY."""
        while self._failed or self._succeeded:
            networks = list(islice(self._succeeded | self._failed, CLIENTS_TOLD))
            news = _News(
                self._host,
                [network for network in networks if network in self._succeeded],
                {network: self._failed[network] for network in networks if network in self._failed},
            )
            for network in networks:
                self._succeeded.pop(network, None)
                self._failed.pop(network, None)
            payload = msgspec.json.encode(news).decode()
            try:
                await self._database.query(
                    "logins.tell", "SELECT pg_notify(%s, %s)", (CHANNEL, payload), timeout=TIMEOUT
                )
            except DatabaseError as error:
                log.warn("Could not tell other hosts of failed logins: {why}", why=str(error))

    def _heard(self, payload: str) -> None:
        if not payload:
            return
        try:
            news = msgspec.json.decode(payload, type=_News)
        except msgspec.DecodeError:
            log.warn("News of failed logins cannot be read: another host has another version")
            return
        if news.host == self._host:
            return
        for network in news.succeeded:
            self._limiter.reset(network)
        for network, count in news.failed.items():
            self._limiter.count(network, count)
