"""A running host for most tests, and hosts of their own for those that stop or kill theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from relaymail.settings import ConnectionString
from tests.end_to_end.api import Api
from tests.end_to_end.host import Host, User

API_KEY = "the key of the API"

MakeHost = Callable[..., Host]


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The API that :func:`host` notifies."""
    api = Api()
    yield api
    api.going.set()
    api.stop()


@pytest.fixture(scope="session")
def host(api: Api) -> Iterator[Host]:
    """A demo host that no test stops, with the embedded PostgreSQL."""
    with TemporaryDirectory(prefix="relaymail-e2e-") as folder:
        host = Host(
            Path(folder),
            {
                "Api__BaseUrl": api.url,
                "Internal__ApiKey": API_KEY,
                # The lockout tests come from addresses of their own, and need not wait minutes
                "Security__RateLimit__BaseBackoffDelay": "0",
                "Security__RateLimit__MaxBackoffDelay": "0",
            },
        )
        try:
            host.start()
            yield host
        finally:
            host.remove()


@pytest.fixture(scope="session")
def demo(host: Host) -> User:
    """The demo user of :func:`host`."""
    (user_id,) = host.row('SELECT "Id" FROM public."Users" WHERE "Email" = %s', "demo@example.test")
    return User(user_id, "demo@example.test", (host.data / "demo-key").read_text().strip())


@pytest.fixture(scope="session")
def made_data() -> Iterator[Path]:
    """The data folder of a demo that has run once: a copy of it saves making a database."""
    with TemporaryDirectory(prefix="relaymail-e2e-") as folder:
        host = Host(Path(folder))
        try:
            host.start()
            assert host.stop() == 0
            yield host.data
        finally:
            host.remove()


@pytest.fixture
def new_host(request: pytest.FixtureRequest) -> Iterator[MakeHost]:
    """Makes hosts of the test's own; they are ended with the test, and their folders with them.

    A demo without a ``database`` gets a copy of :func:`made_data`, unless it is to be ``fresh``.
    """
    hosts: list[Host] = []
    folders: list[TemporaryDirectory[str]] = []

    def make(
        environ: Mapping[str, str] | None = None,
        *,
        options: Sequence[str] = ("--demo",),
        database: Mapping[str, str] | None = None,
        fresh: bool = False,
    ) -> Host:
        folder = TemporaryDirectory(prefix="relaymail-e2e-")
        folders.append(folder)
        settings = dict(environ or {})
        if database is not None:
            settings["ConnectionStrings__DefaultConnection"] = ConnectionString(dict(database)).url()
        host = Host(Path(folder.name), settings, options=options)
        if options and database is None and not fresh:
            # It is PostgreSQL's user that owns the files
            made = request.getfixturevalue("made_data")
            subprocess.run(["cp", "-a", made, host.data], check=True)
        hosts.append(host)
        return host

    yield make
    for host in hosts:
        host.remove()
    for folder in folders:
        folder.cleanup()
