"""SCRAM-SHA-256 over real connections: with a client written from the RFC, and with those of others."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id
from tests.end_to_end.wire import Answer, Wire
from tests.support.polling import until
from tests.support.scram import ScramClient

OFFERED = "SCRAM is offered"
TRIES = 2
"""Wrong keys before a client is locked out."""

_numbers = count(10)
_clients = (f"127.0.3.{number}" for number in _numbers)


@pytest.fixture(scope="module")
def scram(made_data: Path) -> Iterator[Host]:
    """A demo host that offers SCRAM; every key in it is one of ours."""
    with TemporaryDirectory(prefix="relaymail-e2e-") as folder:
        settings = {
            "Smtp__Scram": "true",
            "Security__RateLimit__MaxFailedAttempts": str(TRIES),
            "Security__RateLimit__BaseBackoffDelay": "0",
            "Security__RateLimit__MaxBackoffDelay": "0",
        }
        host = Host(Path(folder), settings)
        subprocess.run(["cp", "-a", made_data, host.data], check=True)
        try:
            host.start()
            host.until_logged(OFFERED)
            yield host
        finally:
            host.remove()


@pytest.fixture
def client() -> str:
    """A client address that no other test has used: failures are counted per address."""
    return next(_clients)


@pytest.fixture
def user(scram: Host) -> User:
    """A user of the test's own with a key that the command line made."""
    address = f"user{next(_numbers)}@example.test"
    scram.cli("user", "add", address)
    made = json.loads(scram.cli("key", "create", address, "--name", "test", "--json"))
    (user_id,) = scram.row('SELECT "Id" FROM public."Users" WHERE "Email" = %s', address)
    return User(user_id, address, made["key"])


def connected(host: Host, client: str = "", *, implicit: bool = False) -> Wire:
    """A session under TLS, EHLO said."""
    if implicit:
        wire = Wire(host.ports.submissions, source=client, greet=False)
        wire.wrap()
        wire.reply()
        wire.hello()
    else:
        wire = Wire(host.ports.submission, source=client)
        wire.hello()
        wire.starttls()
    return wire


def log_in(wire: Wire, client: ScramClient, mechanism: str = "SCRAM-SHA-256") -> Answer:
    """The whole exchange; the server's last answer to it."""
    answer = wire.command(f"AUTH {mechanism} {base64.b64encode(client.first()).decode()}")
    if answer.code == 334:
        answer = wire.command(base64.b64encode(client.final(base64.b64decode(answer.text))))
    if answer.code == 334:
        assert client.trusts(base64.b64decode(answer.text))
        answer = wire.command("")
    return answer


def last_used(host: Host, user: UUID) -> bool:
    (used,) = host.row('SELECT "LastUsedAt" IS NOT NULL FROM public."SmtpApiKeys" WHERE "UserId" = %s', user)
    return bool(used)


def test_it_is_offered_under_tls_only(scram: Host) -> None:
    with Wire(scram.ports.submission) as wire:
        assert "SCRAM" not in wire.hello().text
    with connected(scram) as wire:
        assert "AUTH PLAIN LOGIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS" in wire.hello().lines


def test_it_is_not_offered_by_default(host: Host) -> None:
    with connected(host) as wire:
        assert "AUTH PLAIN LOGIN" in wire.hello().lines
        assert wire.command("AUTH SCRAM-SHA-256").start == "504 5.5.4"


def test_plus_is_not_offered_below_tls_1_3(scram: Host) -> None:
    with Wire(scram.ports.submission) as wire:
        wire.hello()
        wire.command("STARTTLS")
        context = ssl.create_default_context(cafile=str(scram.data / "certificate.pem"))
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
        assert "AUTH PLAIN LOGIN SCRAM-SHA-256" in wire.hello().lines


@pytest.mark.parametrize("implicit", [False, True])
def test_a_login_sends_mail_and_its_key_is_known(scram: Host, user: User, implicit: bool) -> None:
    message_id = new_message_id()
    with connected(scram, implicit=implicit) as wire:
        assert log_in(wire, ScramClient(user.address, user.key)).start == "235 2.7.0"
        raw = message("Subject: By SCRAM", sender=user.address, message_id=message_id)
        assert wire.message(raw, user.address, user.address).start == "250 2.0.0"
    (login,) = scram.row("SELECT login_user_id FROM relaymail.message WHERE message_id = %s", message_id)
    assert login == user.id
    until(lambda: last_used(scram, user.id))


@pytest.mark.parametrize("implicit", [False, True])
def test_the_channel_is_bound_by_the_servers_certificate(scram: Host, user: User, implicit: bool) -> None:
    with connected(scram, implicit=implicit) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        certificate = wire.socket.getpeercert(binary_form=True)
        assert certificate is not None
        bound = ScramClient(
            user.address,
            user.key,
            flag="p=tls-server-end-point",
            binding=hashlib.sha256(certificate).digest(),
        )
        assert log_in(wire, bound, "SCRAM-SHA-256-PLUS").start == "235 2.7.0"


def test_a_client_that_was_kept_from_seeing_plus_is_refused(scram: Host, user: User, client: str) -> None:
    with connected(scram, client) as wire:
        assert log_in(wire, ScramClient(user.address, user.key, flag="y")).start == "535 5.7.8"
        assert log_in(wire, ScramClient(user.address, user.key, flag="n")).start == "235 2.7.0"
    assert "server-does-support-channel-binding" in scram.log


def test_who_has_no_account_cannot_be_told_from_who_has(scram: Host, user: User) -> None:
    def seen(login: str) -> tuple[str, str, str]:
        exchange = ScramClient(login, "wrong")
        with connected(scram, next(_clients)) as wire:
            answer = wire.command(f"AUTH SCRAM-SHA-256 {base64.b64encode(exchange.first()).decode()}")
            first = base64.b64decode(answer.text)
            final = wire.command(base64.b64encode(exchange.final(first)))
        _, salt, iterations = first.decode().split(",")
        return salt, iterations, f"{final.code} {final.text}"

    known, unknown = seen(user.address), seen("nobody@example.test")
    assert known[1:] == unknown[1:] == ("i=4096", "535 5.7.8 Authentication credentials invalid")
    assert len(known[0]) == len(unknown[0])
    scram.restart()
    scram.until_logged(OFFERED)
    assert (seen(user.address), seen("nobody@example.test")) == (known, unknown)


def test_wrong_keys_lock_a_client_out_as_wrong_passwords_do(scram: Host, user: User, client: str) -> None:
    with connected(scram, client) as wire:
        for _ in range(TRIES):
            assert log_in(wire, ScramClient(user.address, "wrong")).start == "535 5.7.8"
    with connected(scram, client) as wire:
        assert log_in(wire, ScramClient(user.address, user.key)).start == "421 4.7.0"
    with connected(scram) as wire:
        assert log_in(wire, ScramClient(user.address, user.key)).start == "235 2.7.0"


def test_a_revoked_key_does_not_log_in(scram: Host, user: User, client: str) -> None:
    scram.cli("key", "revoke", user.key[:12])
    with connected(scram, client) as wire:
        assert log_in(wire, ScramClient(user.address, user.key)).start == "535 5.7.8"


def test_it_stays_off_while_a_key_has_no_verifier(new_host: Callable[..., Host]) -> None:
    host = new_host({"Smtp__Scram": "true"})
    host.start()
    host.until_logged(OFFERED)
    of_the_api = host.user()
    host.restart()
    host.until_logged("SCRAM is not offered: 1 API keys have no verifier")
    with connected(host) as wire:
        assert "AUTH PLAIN LOGIN" in wire.hello().lines
        assert wire.login(of_the_api.address, of_the_api.key).start == "235 2.7.0"


# Clients of others


def program(name: str) -> str:
    """Where a program is; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_msmtp_submits(scram: Host, user: User, tmp_path: Path) -> None:
    msmtp = program("msmtp")
    able = subprocess.run([msmtp, "--version"], capture_output=True, check=True).stdout
    if b"scram-sha-256" not in able:
        pytest.skip("this msmtp is made without GNU SASL")
    settings = tmp_path / "msmtprc"
    settings.write_text(
        f"account default\nhost localhost\nport {scram.ports.submission}\nfrom {user.address}\n"
        f"auth scram-sha-256\nuser {user.address}\npassword {user.key}\n"
        f"tls on\ntls_starttls on\ntls_trust_file {scram.data / 'certificate.pem'}\n"
    )
    settings.chmod(0o600)
    message_id = new_message_id()
    done = subprocess.run(
        [msmtp, "--debug", "-C", str(settings), user.address],
        input=message("Subject: From msmtp", sender=user.address, message_id=message_id),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"AUTH SCRAM-SHA-256\r\n" in done.stdout or b"AUTH SCRAM-SHA-256\n" in done.stdout
    assert scram.stored(message_id) == 1


@pytest.mark.parametrize("right", [True, False])
def test_gsasl_binds_the_channel_with_an_exporter(scram: Host, user: User, client: str, right: bool) -> None:
    done = subprocess.run(
        [
            *(program("gsasl"), "--smtp", "--mechanism", "SCRAM-SHA-256-PLUS", "--verbose"),
            *("--connect", f"localhost:{scram.ports.submission}"),
            *("--x509-ca-file", str(scram.data / "certificate.pem")),
            *("--authentication-id", user.address, "--password", user.key if right else "wrong"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert base64.b64encode(b"p=tls-exporter").decode()[:16] in output
    if right:
        assert "235 2.7.0" in output, output
        assert "server trusted" in output
    else:
        assert "535 5.7.8" in output, output
