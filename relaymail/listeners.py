"""The listeners that the settings ask for: bound early, accepting when mail can be taken or refused well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from twisted.internet.defer import maybeDeferred
from twisted.logger import Logger

from relaymail.settings import Settings
from relaymail.smtp.listener import ESMTPFactory, ListenError, Sessions, adopt, bind, open_endpoint
from relaymail.smtp.policy import ListenerName
from relaymail.smtp.reply import Reply
from relaymail.smtp.surroundings import Surroundings

log = Logger()

_KEYS: Final[dict[ListenerName, tuple[str, str]]] = {
    "submission": ("Smtp:Port", "Smtp:Endpoints:Submission"),
    "submissions": ("Smtp:SecurePort", "Smtp:Endpoints:Smtps"),
    "mx": ("Smtp:Mx:Port", "Smtp:Endpoints:Mx"),
}
"""Where the port, or the endpoint in its place, of each listener is set."""


class Listeners:
    """Submission, SMTPS and MX, as far as they are on.

    :param has_certificate: whether there is one, or will be: without it SMTPS stays closed.
    """

    def __init__(self, settings: Settings, has_certificate: bool, reactor: Any) -> None:
        self._settings = settings.smtp
        self._reactor = reactor
        self._sockets: dict[ListenerName, list[Any]] = {}
        self._ports: dict[ListenerName, list[Any]] = {}
        self._wanted = self._asked_for(has_certificate)
        self.sessions = Sessions(self._settings.limits.connections or sys.maxsize)

    def _asked_for(self, has_certificate: bool) -> dict[ListenerName, tuple[int, str | None]]:
        smtp = self._settings
        if not smtp.enabled:
            return {}
        endpoints = smtp.endpoints
        known: dict[ListenerName, tuple[int, str | None]] = {"submission": (smtp.port, endpoints.submission)}
        if has_certificate:
            known["submissions"] = (smtp.secure_port, endpoints.smtps)
        if smtp.mx.enabled:
            known["mx"] = (smtp.mx.port, endpoints.mx)
        return {name: where for name, where in known.items() if any(where)}

    @property
    def names(self) -> list[ListenerName]:
        """Those that are on."""
        return list(self._wanted)

    def bind(self) -> None:
        """Take the ports, while the process may. Raises :exc:`~relaymail.smtp.listener.ListenError`."""
        for name, (port, endpoint) in self._wanted.items():
            if endpoint is None:
                with _named(f"{_KEYS[name][0]}, Smtp:BindAddresses"):
                    self._sockets[name] = bind(name, self._settings.bind_addresses, port)

    async def open(
        self, surroundings: Callable[[ListenerName], Surroundings], ready: Callable[[], Reply | None]
    ) -> None:
        """Accept connections. Raises :exc:`~relaymail.smtp.listener.ListenError`."""
        for name, (_, endpoint) in self._wanted.items():
            around = surroundings(name)
            factory = ESMTPFactory(around, self.sessions, ready)
            if endpoint is not None:
                with _named(_KEYS[name][1]):
                    self._ports[name] = [await open_endpoint(factory, around, endpoint, self._reactor)]
            else:
                self._ports[name] = adopt(self._sockets.pop(name), factory, around, self._reactor)

    def submission(self) -> tuple[str, int] | None:
        """Where submission listens right now."""
        for port in self._ports.get("submission", ()):
            address = port.getHost()
            return address.host, address.port
        return None

    async def stop(self) -> None:
        """Take no more connections, and let the sessions come to their end."""
        for ports in self._ports.values():
            for port in ports:
                await maybeDeferred(port.stopListening)
        if self.sessions:
            log.info("Draining {count} sessions", count=len(self.sessions))
        await self.sessions.drain(self._settings.timeouts.drain, self._reactor)

    def close(self) -> None:
        """Let go of ports that were never opened."""
        for sockets in self._sockets.values():
            for listening in sockets:
                listening.close()


@contextmanager
def _named(keys: str) -> Iterator[None]:
    """Put in front of a listener's error where the operator mends it."""
    try:
        yield
    except ListenError as error:
        raise ListenError(f"{keys}: {error}") from error
