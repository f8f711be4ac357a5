"""A running host that programs of others send to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.end_to_end.host import Host, User

# Wrong passwords belong to what is shown here; what a client that goes on with them gets is tested elsewhere
PATIENT = {
    "Security__RateLimit__MaxFailedAttempts": "1000",
    "Security__RateLimit__BaseBackoffDelay": "0",
    "Security__RateLimit__MaxBackoffDelay": "0",
}


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """A demo host with the embedded PostgreSQL."""
    with TemporaryDirectory(prefix="relaymail-interop-") as folder:
        host = Host(Path(folder), PATIENT)
        try:
            host.start()
            yield host
        finally:
            host.remove()


@pytest.fixture(scope="session")
def user(host: Host) -> User:
    """A user of :func:`host`."""
    return host.user()


@pytest.fixture(scope="session")
def certificate(host: Host) -> str:
    """What clients are to trust: the host's own certificate, good for ``localhost``."""
    return str(host.data / "certificate.pem")
