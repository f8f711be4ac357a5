"""Every dependency hangs at once, for real: the answer comes in time all the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaymail.dns import Resolver
from relaymail.health import HealthMonitor, HealthServer
from relaymail.health.checks import (
    connection_pool_check,
    database_check,
    disk_space_check,
    dns_mx_check,
    memory_check,
    smtp_check,
)
from relaymail.smtp.probe import ProbeRegistry
from relaymail.store.database import Database
from tests.conftest import reactor
from tests.dns.server import DNSServer
from tests.health.support import Listen, request
from tests.support.postgres import PostgresServer

LIMIT = 2.0
"""Seconds each check has here: enough for those that do not hang."""


@pytest.fixture
def frozen(postgres: PostgresServer, database: Database) -> Iterator[PostgresServer]:
    """The server; it goes on after the test, before the database is dropped."""
    yield postgres
    postgres.thaw()


@pytest.fixture
def hung_disk() -> Iterator[threading.Event]:
    """Looks at the disk return when it is set."""
    event = threading.Event()
    yield event
    event.set()


async def test_the_answer_is_there_in_time_and_live_is_well(
    frozen: PostgresServer,
    database: Database,
    dns_server: DNSServer,
    listen: Listen,
    hung_disk: threading.Event,
    tmp_path: Path,
) -> None:
    silent = listen(None)

    def look(folder: Path) -> os.statvfs_result:
        hung_disk.wait()
        return os.statvfs(folder)

    checks = [
        database_check(database),
        smtp_check(lambda: silent.address, probes=ProbeRegistry(), reactor=reactor),
        dns_mx_check(Resolver([dns_server.address], reactor=reactor), "gmail.com"),
        connection_pool_check(database, clock=reactor),
        disk_space_check(tmp_path, reactor=reactor, look=look),
        memory_check(),
    ]
    monitor = HealthMonitor(checks, ready=["database", "smtp", "dns-mx"], clock=reactor, limit=LIMIT)
    server = HealthServer(monitor, "127.0.0.1", 0, reactor=reactor)
    server.start()
    url = f"http://127.0.0.1:{server.addresses[0][1]}/healthz"
    frozen.freeze()
    response = await request("GET", url)
    assert response.code == 503
    hung = {
        check["name"] for check in response.json["checks"] if check["description"] == "timed out after 2 s"
    }
    assert hung == {"database", "smtp", "dns-mx", "disk-space"}
    assert response.json["totalDuration"] > 0.9 * LIMIT * 1000
    assert (await request("GET", url + "/live")).code == 200
    assert (await request("GET", url + "/ready")).code == 503
    monitor.stop()
    await server.stop()
