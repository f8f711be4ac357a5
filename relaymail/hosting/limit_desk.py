"""Tells an operator what this host counts of its clients, and forgets it on request.

The operator's command is another process; it asks by way of the database, and all hosts on it answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from sys import maxsize
from typing import Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from relaymail.hosting.login_limiter import FailedLoginLimiter, LoginState
from relaymail.smtp.limits import ClientLimits, ClientState
from relaymail.store import limits as store
from relaymail.store.database import Database, DatabaseError

log = Logger()

CLIENTS_SHOWN: Final = 1000
"""Per kind of listener, and of failed logins: what is written down while sessions wait has a bound."""


@dataclass(frozen=True, slots=True)
class ListenerState:
    """The clients of a kind of listener, and what each may have; 0 is no limit."""

    listener: str
    limits: dict[str, int]
    known: int
    """Clients that are remembered; only the first 1000 are told of."""
    clients: list[ClientState]


@dataclass(frozen=True, slots=True)
class HostState:
    """The answer of a host. ``forgotten``: entries that begin anew; 1 or 0 where one client was named."""

    host: str
    connections: int
    listeners: list[ListenerState]
    failed_logins: list[LoginState]
    forgotten: int


class LimitDesk:
    """Answers ``relaymail limits``.

    :param name: of this host and process.
    :param clients: the counts, by kind of listener.
    :param connections: how many are open in all.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        clients: Mapping[str, ClientLimits],
        logins: FailedLoginLimiter,
        connections: Callable[[], int],
    ) -> None:
        self._database = database
        self._name = name
        self._clients = clients
        self._logins = logins
        self._connections = connections

    def start(self) -> None:
        """Begin to answer."""
        self._database.listen(store.QUESTION_CHANNEL, self._asked)

    def _asked(self, payload: str) -> None:
        if not payload:
            return
        try:
            question = store.read_question(payload)
        except msgspec.DecodeError:
            log.warn("A question about limits cannot be read: another version asks")
            return
        answering = Deferred.fromCoroutine(self._answer(question))
        answering.addErrback(lambda failure: log.failure("Answering about limits failed", failure))

    async def _answer(self, question: store.Question) -> None:
        forgotten = self._reset(question.client) if question.command == "reset" else 0
        try:
            await store.answer(self._database, question, msgspec.json.encode(self.state(forgotten)).decode())
        except DatabaseError as error:
            log.warn("Could not answer a question about limits: {why}", why=str(error))

    def _reset(self, client: str | None) -> int:
        """Forget what is counted of one client, or of all; returns how many entries there were."""
        found = [limits.reset(client) for limits in self._clients.values()]
        found.append(self._logins.reset(client))
        forgotten = min(1, sum(found)) if client is not None else sum(found)
        log.info("Limits were reset for {client}", client=client or "all clients")
        return forgotten

    def state(self, forgotten: int = 0) -> HostState:
        """What is counted at the moment."""
        return HostState(
            self._name,
            self._connections(),
            [
                ListenerState(
                    name,
                    {key: 0 if most == maxsize else most for key, most in asdict(limits.allowance).items()},
                    len(limits),
                    limits.states(CLIENTS_SHOWN),
                )
                for name, limits in self._clients.items()
            ],
            self._logins.states(CLIENTS_SHOWN),
            forgotten,
        )
