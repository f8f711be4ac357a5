"""Programs that others have written send mail, and it is stored."""

from __future__ import annotations

import os
import shutil
import smtplib
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id
from tests.end_to_end.wire import Wire
from tests.support.ipv6 import needs_ipv6
from tests.support.polling import until

Facts = tuple[str, str | None, str, bool]


def facts(host: Host, message_id: str) -> Facts:
    """Listener, TLS version, sender and whether there was a login, of the message with this Message-ID."""
    listener, tls, sender, login = host.row(
        "SELECT listener, tls_version, reverse_path, login_user_id IS NOT NULL FROM relaymail.message"
        " WHERE message_id = %s",
        message_id,
    )
    return listener, tls, sender, login


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("implicit", [False, True])
def test_smtplib_submits(host: Host, demo: User, mechanism: str, implicit: bool) -> None:
    message_id = new_message_id()
    with host.smtplib(demo, implicit=implicit) as client:
        client.ehlo()
        assert client.esmtp_features["auth"] == " PLAIN LOGIN"
        client.esmtp_features["auth"] = f" {mechanism}"
        client.login(demo.address, demo.key)
        raw = message("Subject: Submitted", sender=demo.address, message_id=message_id)
        client.sendmail(demo.address, [demo.address], raw, ["BODY=8BITMIME"])
    listener = "submissions" if implicit else "submission"
    assert facts(host, message_id) == (listener, "TLSv1.3", demo.address, True)


def test_smtplib_delivers(host: Host, demo: User) -> None:
    message_id = new_message_id()
    with smtplib.SMTP("localhost", host.ports.mx, timeout=120) as client:
        assert client.sendmail("friend@example.org", [demo.address], message(message_id=message_id)) == {}
    assert facts(host, message_id) == ("mx", None, "friend@example.org", False)


@pytest.mark.parametrize(
    ("address", "shown"),
    [("127.0.0.1", "[127.0.0.1]"), pytest.param("::1", "[IPv6:::1]", marks=needs_ipv6)],
)
def test_both_internet_protocols_are_served(host: Host, demo: User, address: str, shown: str) -> None:
    with Wire(host.ports.mx, host=address) as wire:
        wire.hello("client.test")
        message_id = wire.message(message(), "friend@example.org", demo.address).id
    client, trace = host.row(
        "SELECT client_address, convert_from(trace_headers, 'UTF8') FROM relaymail.message"
        " WHERE id = %s::uuid",
        message_id,
    )
    assert client == address
    assert trace.startswith("Return-Path: <friend@example.org>\r\nReceived: from client.test (" + shown + ")")
    assert f"id {message_id}\r\n\tfor <{demo.address}>;" in trace


def test_smtplib_delivers_over_tls(host: Host, demo: User) -> None:
    message_id = new_message_id()
    with smtplib.SMTP("localhost", host.ports.mx, timeout=120) as client:
        client.starttls(context=host.trust())
        client.sendmail("friend@example.org", [demo.address], message(message_id=message_id))
        assert "auth" not in client.esmtp_features
    assert facts(host, message_id) == ("mx", "TLSv1.3", "friend@example.org", False)


def test_smtplib_sends_internationalized_mail(host: Host) -> None:
    user = host.user("grüße")
    message_id = new_message_id()
    raw = message("Subject: Übung", sender="freund@beispiel.example", message_id=message_id)
    with smtplib.SMTP("localhost", host.ports.mx, timeout=120) as client:
        client.sendmail("freund@bücher.example", [user.address], raw, ["SMTPUTF8", "BODY=8BITMIME"])
    assert facts(host, message_id)[2] == "freund@bücher.example"


def run(*arguments: str, environment: dict[str, str] | None = None) -> None:
    """Run a program that must succeed."""
    done = subprocess.run(
        arguments,
        capture_output=True,
        timeout=120,
        check=False,
        env=None if environment is None else {**os.environ, **environment},
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def program(name: str) -> str:
    """Where a program is; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_curl_submits(host: Host, demo: User, tmp_path: Path, scheme: str) -> None:
    message_id = new_message_id()
    file = tmp_path / "message.eml"
    file.write_bytes(message("Subject: From curl", sender=demo.address, message_id=message_id))
    port = host.ports.submission if scheme == "smtp" else host.ports.submissions
    run(
        *(program("curl"), "--silent", "--show-error", f"{scheme}://localhost:{port}/client.test"),
        *("--ssl-reqd", "--cacert", str(host.data / "certificate.pem")),
        *("--user", f"{demo.address}:{demo.key}", "--mail-from", demo.address, "--mail-rcpt", demo.address),
        *("--upload-file", str(file)),
    )
    assert facts(host, message_id)[0] == ("submission" if scheme == "smtp" else "submissions")


def test_curl_delivers(host: Host, demo: User, tmp_path: Path) -> None:
    message_id = new_message_id()
    file = tmp_path / "message.eml"
    file.write_bytes(message("Subject: From curl", message_id=message_id))
    run(
        *(program("curl"), "--silent", "--show-error", f"smtp://localhost:{host.ports.mx}/client.test"),
        *("--mail-from", "friend@example.org", "--mail-rcpt", demo.address, "--upload-file", str(file)),
    )
    assert facts(host, message_id) == ("mx", None, "friend@example.org", False)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits(host: Host, demo: User, mechanism: str) -> None:
    message_id = new_message_id()
    run(
        *(program("swaks"), "--server", f"localhost:{host.ports.submission}", "--tls"),
        *("--auth", mechanism, "--auth-user", demo.address, "--auth-password", demo.key),
        *("--from", demo.address, "--to", demo.address, "--header", f"Message-Id: <{message_id}>"),
    )
    assert facts(host, message_id)[0] == "submission"


def test_swaks_delivers_to_several(host: Host, demo: User) -> None:
    message_id = new_message_id()
    other = host.user()
    run(
        *(program("swaks"), "--server", f"localhost:{host.ports.mx}", "--pipeline"),
        *("--from", "friend@example.org", "--to", f"{demo.address},{other.address}"),
        *("--header", f"Message-Id: <{message_id}>"),
    )
    assert facts(host, message_id)[0] == "mx"


def smtp_source() -> tuple[str, dict[str, str]]:
    """Postfix's load generator: installed, or in the folder that ``RELAYMAIL_POSTFIX`` names."""
    folder = os.environ.get("RELAYMAIL_POSTFIX")
    if folder is None:
        return program("smtp-source"), {}
    libraries = os.path.join(folder, "usr", "lib", "postfix")
    return os.path.join(folder, "usr", "sbin", "smtp-source"), {"LD_LIBRARY_PATH": libraries}


def test_smtp_source_delivers_over_many_connections_at_once(host: Host) -> None:
    source, environment = smtp_source()
    user = host.user()
    run(
        *(source, "-d", "-c", "-s", "10", "-m", "200", "-l", "4096"),
        *("-f", "load@example.org", "-t", user.address, f"127.0.0.1:{host.ports.mx}"),
        environment=environment,
    )
    count = 'SELECT count(*) FROM public."EmailRecipients" WHERE "UserId" = %s'
    until(lambda: host.row(count, user.id) == (200,))
