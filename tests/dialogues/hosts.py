"""Hosts for the scripts: one for each set of settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from relaymail.settings import ConnectionString
from tests.end_to_end.host import UP, Host, greets
from tests.support.polling import until
from tests.support.postgres import PostgresServer

DATABASE = "ConnectionStrings__DefaultConnection"
ALWAYS = {
    # Who mistypes a key need not wait minutes
    "Security__RateLimit__BaseBackoffDelay": "0",
    "Security__RateLimit__MaxBackoffDelay": "0",
}


class SharedHost(Host):
    """A host that several scripts meet."""

    ready = True
    """Whether it has its database."""

    def start(self) -> None:
        """Start, and wait until it takes mail, or says that it cannot."""
        if self.ready:
            super().start()
        else:
            self.launch()
            self.until_logged(UP)
            until(lambda: greets(self.ports.mx) == 421)


class Hosts:
    """Starts a host for a set of settings when it is first asked for one; the one before it is ended."""

    def __init__(self, folder: Path, postgres: PostgresServer, template: str) -> None:
        self._folder = folder
        self._postgres = postgres
        self._template = template
        self._host: SharedHost | None = None
        self._settings: Mapping[str, str] | None = None
        self._made = 0

    def get(self, settings: Mapping[str, str]) -> SharedHost:
        """A running host with these settings over those of the demo."""
        if self._host is not None and self._settings == settings:
            return self._host
        self.remove()
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        self._settings = dict(settings)
        self._host = SharedHost(folder, {DATABASE: self._database(), **ALWAYS, **settings})
        self._host.ready = DATABASE not in settings
        self._host.start()
        return self._host

    def _database(self) -> str:
        parameters = self._postgres.parameters(self._postgres.new_database(self._template))
        return ConnectionString(dict(parameters)).url()

    def remove(self) -> None:
        """End the host there is."""
        if self._host is not None:
            self._host.remove()
            self._host = None
