"""An installation that is broken in ten ways: the doctor names all ten, in one run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cli.conftest import settings
from tests.smtp_tls.conftest import issue
from tests.support.dns_server import ThreadedDNSServer
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer

NAME = "mail.example.com"


@pytest.fixture
def postfix() -> Iterator[int]:
    """Another mail server, on the port of submission."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def greet() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"220 old.example.com ESMTP Postfix\r\n")

        threading.Thread(target=greet, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def dns() -> Iterator[ThreadedDNSServer]:
    server = ThreadedDNSServer()
    server.start()
    zones = server.zones
    zones.mx("gmail.com", "5 gmail-smtp-in.l.google.com")
    zones.a(NAME, "8.8.4.4")
    zones.set("4.4.8.8.in-addr.arpa", "PTR", f"{NAME}.")
    zones.a("old-provider.example.net", "9.9.9.9")
    zones.mx("example.com", "10 old-provider.example.net")
    zones.set("example.com", "TXT", '"v=spf1 include:old-provider.example.net -all"')
    zones.set("old-provider.example.net", "TXT", '"v=spf1 ip4:9.9.9.9 -all"')
    zones.set("_dmarc.example.com", "TXT", '"v=DMARC1; p=reject"')
    yield server
    server.stop()


def break_database(postgres: PostgresServer, name: str) -> None:
    """A notification that was given up, an address of two users, an index that is gone."""
    postgres.sql(name, "DROP INDEX relaymail_addresses_address")
    postgres.sql(
        name,
        "INSERT INTO relaymail.outbox (message_id, email_id, payload, state, last_error) "
        f"VALUES ('{uuid4()}', '{uuid4()}', '{{}}', 'dead', 'HTTP 401 Unauthorized')",
    )
    for email in ("anna@example.com", "Anna@example.com"):
        user = uuid4()
        postgres.sql(
            name,
            'INSERT INTO "Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt") '
            f"VALUES ('{user}', '{user}', 'test', '{email}', now())",
        )


def test_all_ten_are_named(
    tmp_path: Path,
    postgres: PostgresServer,
    database_parameters: dict[str, str],
    dns: ThreadedDNSServer,
    postfix: int,
) -> None:
    expired = issue(NAME, ends=timedelta(days=-1))
    (tmp_path / "old.pem").write_bytes(expired.pem + expired.key_pem())
    break_database(postgres, database_parameters["dbname"])
    (tmp_path / "data").write_text("a file in the place of the folder")
    environ = {
        **settings(database_parameters),
        "Data__Directory": str(tmp_path / "data"),
        "Smtp__ServerName": NAME,
        "Smtp__BindAddresses__0": "127.0.0.1",
        "Smtp__Port": str(postfix),
        "Smtp__SecurePort": str(free_port()),
        "Smtp__CertificatePath": str(tmp_path / "old.pem"),
        "Smtp__Mx__Enabled": "true",
        "Smtp__Mx__Port": str(free_port()),
        "Smtp__Mx__HostedDomains__0": "example.com",
        "Smtp__MaxMesageSizeBytes": "1000",
        "HealthCheck__Url": f"http://localhost:{free_port()}",
        "Dns__Servers__0": dns.address,
        "Doctor__OutboundTarget": f"127.0.0.1:{free_port()}",
        "Api__BaseUrl": f"http://127.0.0.1:{free_port()}",
        "Internal__ApiKey": "hush-api-key",
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "relaymail.cli", "doctor", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "hush" not in done.stdout + done.stderr
    found: dict[str, Any] = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    broken = {
        "check.settings.valid": "did you mean Smtp:MaxMessageSizeBytes?",
        "check.system.data-folder": "is no folder",
        "check.ports.listeners": "ESMTP Postfix",
        "check.tls.expiry": "has expired",
        "check.dns.mx": "which is not this host",
        "check.dns.spf": "SPF says fail for 8.8.4.4",
        "check.outbound.port25": "refused",
        "check.api.reachable": "does not answer",
        "check.mail.outbox-dead": "HTTP 401 Unauthorized",
        "check.accounts.addresses": "anna@example.com",
        "check.database.indexes": "relaymail_addresses_address",
        "check.accounts.postmaster": "Smtp:Postmaster is not set",
    }
    for name, told in broken.items():
        assert found[name]["state"] == "fail", found[name]
        assert told in json.dumps(found[name]), found[name]
    # reachable may find it slow on a busy machine; those behind it look only at what is reached
    well = {"check.database.version", "check.database.permissions", "check.dns.resolver", "check.dns.dmarc"}
    assert {name for name in well if found[name]["state"] != "pass"} == set()
