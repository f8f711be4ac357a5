"""The doctor beside a host that runs, with its embedded database; and behind one that was stopped."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaymail.smtp.certificate import development_certificate
from tests.end_to_end.host import BIN, Host
from tests.support.dns_server import ThreadedDNSServer

WELL = {
    "check.system.data-folder",
    "check.ports.listeners",
    "check.host.health",
    "check.database.version",
    "check.database.permissions",
    "check.database.migrations",
    "check.database.indexes",
    "check.database.clock",
    "check.database.embedded",
    "check.tls.certificate",
    "check.tls.expiry",
    "check.tls.ports",
    "check.dns.resolver",
    "check.mail.recipients",
    "check.mail.outbox-dead",
    "check.queue.leases",
    "check.queue.due",
    "check.accounts.addresses",
}
"""What a demo has to be well in; that its database can be reached shows in what is behind that."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="relaymail-doctor-"))
    server = ThreadedDNSServer()
    server.start()
    server.zones.mx("gmail.com", "5 gmail-smtp-in.l.google.com")
    made = Host(folder, {"Dns__Servers__0": server.address, "Api__BaseUrl": "http://127.0.0.1:9"})
    made.start()
    yield made
    made.remove()
    server.stop()
    shutil.rmtree(folder)


def examine(host: Host, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code and what was found, by check."""
    done = subprocess.run(
        [str(BIN / "relaymail"), *host.options, "doctor", "run", "--json", *arguments],
        env=host.environment(),
        cwd=host.data.parent,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done.returncode, {check["id"]: check for check in json.loads(done.stdout)["checks"]}


def run(host: Host) -> None:
    """Start it, where another test has stopped it."""
    if not host.running:
        host.start()


def test_a_running_host_is_looked_at(host: Host) -> None:
    run(host)
    _, found = examine(host)
    assert {name for name in WELL if found[name]["state"] != "pass"} == set(), found
    ports = found["check.ports.listeners"]["data"]["ports"]
    assert ports == dict.fromkeys(("submission", "submissions", "mx", "health"), "ours")
    assert "same certificate, that of the file" in found["check.tls.ports"]["summary"]
    assert f"used by host {host.pid}" in found["check.database.embedded"]["summary"]


def test_a_running_host_with_another_certificate_than_the_file(host: Host) -> None:
    run(host)
    other = development_certificate(host.data.parent / "other", ["relaymail.example.test"])
    host.environ["Smtp__CertificatePath"] = str(other)
    try:
        _, found = examine(host, "--check", "check.tls.ports")
    finally:
        del host.environ["Smtp__CertificatePath"]
    assert "another certificate than that of the file" in found["check.tls.ports"]["summary"]


def test_a_running_host_that_lost_its_database_says_so(host: Host) -> None:
    if host.running:
        host.stop()
    host.environ["ConnectionStrings__DefaultConnection"] = "Host=127.0.0.1;Port=9;Database=x;Password=hush-db"
    host._url = None
    host.launch()
    host.until_logged("relaymail is up")
    try:
        code, found = examine(host)
    finally:
        host.stop()
        del host.environ["ConnectionStrings__DefaultConnection"]
        host._url = None
    assert code == 1
    assert "sends clients away" in found["check.ports.listeners"]["summary"]
    assert "cannot be reached" in found["check.database.reachable"]["summary"]
    assert "Unhealthy" in found["check.host.health"]["summary"]
    assert "hush" not in json.dumps(found)


def test_a_stopped_host_s_database_is_looked_at_and_left_stopped(host: Host) -> None:
    if host.running:
        host.stop()
    _, found = examine(host)
    for name in WELL - {"check.host.health", "check.tls.ports"}:
        assert found[name]["state"] == "pass", found[name]
    assert found["check.ports.listeners"]["data"]["ports"]["submission"] == "free"
    assert found["check.tls.ports"]["state"] == "skip"
    assert host.postgres_processes() == []
