"""LISTEN on a connection of its own, replaced when lost and asked now and then for a sign of life."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from relaymail.store.connection import Connection
from relaymail.store.dialing import FIRST_WAIT, LONGEST_WAIT, Dialer
from relaymail.store.errors import DatabaseError

log = Logger()

KEEPALIVE = 30.0
"""Seconds between two questions to a quiet connection."""


class Listener:
    """Keeps every added channel listened to, from :meth:`start` to :meth:`stop`.

    :param timeout: seconds the server has for each answer.
    """

    def __init__(self, dialer: Dialer, reactor: Any, timeout: float) -> None:
        self._dialer = dialer
        self._reactor = reactor
        self._timeout = timeout
        self._callbacks: dict[str, list[Callable[[str], None]]] = {}
        self._running = False
        self._loop: Deferred[None] | None = None
        self._connection: Connection | None = None
        self._wake: Deferred[None] | None = None
        self._added: list[str] = []

    def add(self, channel: str, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with each payload, and with ``""`` after each (re)connect."""
        self._callbacks.setdefault(channel, []).append(callback)
        self._added.append(channel)
        self._start_loop()
        self._wake_up()

    def start(self) -> None:
        """Begin; nothing is opened before there is a channel."""
        self._running = True
        self._start_loop()

    async def stop(self) -> None:
        """Close the connection and forget nothing: :meth:`start` may follow."""
        self._running = False
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
        if self._connection is not None:
            self._connection.close()

    def _start_loop(self) -> None:
        if self._running and self._callbacks and self._loop is None:
            self._loop = Deferred.fromCoroutine(self._keep_listening())
            self._loop.addErrback(self._ended)

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            log.failure("Listening on the database ended in an unforeseen way", failure=failure)

    async def _keep_listening(self) -> None:
        wait = FIRST_WAIT
        while self._running:
            try:
                self._connection = await self._dialer.dial(self._lost, self._notified)
                self._added = list(self._callbacks)
                while self._connection is not None:
                    await self._subscribe(self._connection)
                    wait = FIRST_WAIT
                    await self._pause(KEEPALIVE)
            except DatabaseError:
                # The pool, which uses the same server, has said so already
                if self._connection is not None:
                    self._connection.close()
            await self._pause(wait * random.uniform(1.0, 1.5))
            wait = min(LONGEST_WAIT, wait * 2)

    async def _subscribe(self, connection: Connection) -> None:
        """LISTEN to what was added since; with nothing added, ask for a sign of life."""
        added, self._added = list(dict.fromkeys(self._added)), []
        statements = [f"LISTEN {_quoted(channel)}" for channel in added]
        connection.set_deadline(self._reactor.seconds() + self._timeout)
        await connection.run(";".join(statements) or "SELECT 1")
        connection.clear_deadline()
        for channel in added:
            self._notified(channel, "")

    def _notified(self, channel: str, payload: str) -> None:
        for callback in list(self._callbacks.get(channel, ())):
            try:
                callback(payload)
            except Exception:
                log.failure("A listener on {channel} failed", channel=channel)

    def _lost(self, connection: Connection, error: DatabaseError) -> None:
        self._connection = None
        self._wake_up()

    def _wake_up(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake.callback(None)

    async def _pause(self, seconds: float) -> None:
        if self._added and self._connection is not None:
            return
        wake: Deferred[None] = Deferred()
        self._wake = wake
        timer = self._reactor.callLater(seconds, self._wake_up)
        try:
            await wake
        finally:
            self._wake = None
            if timer.active():
                timer.cancel()


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
