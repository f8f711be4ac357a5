"""Command line clients: openssl s_client, curl, swaks, msmtp, s-nail."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer

import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message, new_message_id
from tests.interop.conftest import PATIENT
from tests.interop.programs import LIMIT, program, run, succeed
from tests.interop.stored import all_stored, stored

EIGHT_BIT = (
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
)
# Lines that begin with dots show the dot-stuffing
GREETING = "Grüße aus Köln\r\n.\r\n..und ein Punkt\r\n"
DSN_OF_MSMTP = {"NOTIFY": "SUCCESS,FAILURE"}


@pytest.fixture(params=["submission", "submissions"])
def listener(request: pytest.FixtureRequest) -> str:
    """Each of the two ways to submit: STARTTLS and implicit TLS."""
    name: str = request.param
    return name


def port(host: Host, listener: str) -> int:
    """The port of a listener."""
    number: int = getattr(host.ports, listener)
    return number


# openssl


class Dialogue:
    """A person who types at ``openssl s_client`` and reads what comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def reply(self) -> list[str]:
        """The lines of the next reply; what openssl prints itself is left out."""
        assert self._process.stdout is not None
        lines: list[str] = []
        for line in self._process.stdout:
            text = line.decode().rstrip()
            if text[:3].isdigit() and text[3:4] in {" ", "-"}:
                lines.append(text)
                if text[3] == " ":
                    return lines
        raise AssertionError(f"the connection ended behind {lines}")

    def say(self, *lines: str) -> list[str]:
        """Type lines; the reply."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self._process.stdin.flush()
        return self.reply()

    def hello(self) -> list[str]:
        """Say EHLO; the lines of its reply. A greeting may come before it, or what openssl shows of one."""
        lines = self.say("EHLO client.example")
        while len(lines) == 1:
            lines = self.reply()
        return lines


@contextmanager
def s_client(host: Host, certificate: str, listener: str) -> Iterator[Dialogue]:
    """A TLS connection with the certificate and the name in it checked."""
    starttls = () if listener == "submissions" else ("-starttls", "smtp")
    process = subprocess.Popen(
        [
            *(program("openssl"), "s_client", "-quiet", "-crlf", *starttls),
            *("-connect", f"localhost:{port(host, listener)}", "-CAfile", certificate),
            *("-verify_return_error", "-verify_hostname", "localhost"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    too_late = Timer(LIMIT, process.kill)
    too_late.start()
    try:
        yield Dialogue(process)
        assert process.wait(LIMIT) == 0
    finally:
        too_late.cancel()
        process.kill()
        process.communicate()


def test_openssl_submits(host: Host, user: User, certificate: str, listener: str) -> None:
    ids = [new_message_id(), new_message_id()]
    secret = base64.b64encode(f"\0{user.address}\0{user.key}".encode()).decode()
    with s_client(host, certificate, listener) as client:
        assert client.hello()[-1] == "250 AUTH PLAIN LOGIN"
        assert client.say(f"AUTH PLAIN {secret}") == ["235 2.7.0 Authentication successful"]
        for message_id in ids:
            assert client.say(f"MAIL FROM:<{user.address}>")[0][:9] == "250 2.1.0"
            assert client.say(f"RCPT TO:<{user.address}>")[0][:9] == "250 2.1.5"
            assert client.say("DATA")[0][:3] == "354"
            lines = message(sender=user.address, message_id=message_id).decode().splitlines()
            assert client.say(*lines, ".")[0][:9] == "250 2.0.0"
        assert client.say("QUIT") == ["221 2.0.0 Bye"]
    for message_id in ids:
        found = stored(host, message_id)
        assert (found.listener, found.tls, found.login) == (listener, "TLSv1.3", user.id)
        assert found.raw == message(sender=user.address, message_id=message_id)


def test_openssl_delivers(host: Host, user: User, certificate: str) -> None:
    message_id = new_message_id()
    with s_client(host, certificate, "mx") as client:
        assert not any("AUTH" in line or "STARTTLS" in line for line in client.hello())
        client.say("MAIL FROM:<friend@example.org>")
        client.say(f"RCPT TO:<{user.address}>")
        client.say("DATA")
        assert client.say(*message(message_id=message_id).decode().splitlines(), ".")[0][:9] == "250 2.0.0"
        client.say("QUIT")
    assert stored(host, message_id).tls == "TLSv1.3"


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1", "-tls1_2", "-tls1_3"])
def test_openssl_gets_tls_1_2_and_newer_only(host: Host, certificate: str, version: str) -> None:
    done = run(
        *(program("openssl"), "s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-CAfile", certificate),
        *("-brief", "-connect", f"localhost:{host.ports.submissions}"),
        stdin=b"QUIT\r\n",
    )
    assert (done.code == 0) == (version in {"-tls1_2", "-tls1_3"}), done.text


# curl


def curl(certificate: str) -> tuple[str, ...]:
    """curl with the certificate checked and TLS demanded."""
    return (program("curl"), "--silent", "--show-error", "--ssl-reqd", "--cacert", certificate)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_curl_submits_several_messages_in_one_session(
    host: Host, user: User, certificate: str, tmp_path: Path, listener: str, mechanism: str
) -> None:
    scheme = "smtp" if listener == "submission" else "smtps"
    raws = {
        message_id: message(*EIGHT_BIT, body=GREETING, sender=user.address, message_id=message_id)
        for message_id in (new_message_id() for _ in range(3))
    }
    command: list[str] = []
    for message_id, raw in raws.items():
        file = tmp_path / message_id
        file.write_bytes(raw)
        command += [
            *("--next", *curl(certificate)[1:], f"{scheme}://localhost:{port(host, listener)}/client.test"),
            *("--user", f"{user.address}:{user.key}", "--login-options", f"AUTH={mechanism}"),
            *("--mail-from", user.address, "--mail-rcpt", user.address, "--upload-file", str(file)),
        ]
    succeed(program("curl"), *command[1:])
    found = [stored(host, message_id) for message_id in raws]
    assert [one.raw for one in found] == list(raws.values())
    assert {(one.listener, one.tls, one.login) for one in found} == {(listener, "TLSv1.3", user.id)}
    assert len({one.session for one in found}) == 1


def test_curl_is_told_of_a_wrong_password(host: Host, user: User, certificate: str, listener: str) -> None:
    scheme = "smtp" if listener == "submission" else "smtps"
    done = run(
        *curl(certificate),
        *(f"{scheme}://localhost:{port(host, listener)}", "--user", f"{user.address}:wrong"),
        *("--mail-from", user.address, "--mail-rcpt", user.address, "--upload-file", "-"),
        stdin=message(),
    )
    assert done.code == 67, done.text  # CURLE_LOGIN_DENIED


def test_curl_delivers_internationalized_mail(
    host: Host, certificate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    if "IDN" not in succeed(program("curl"), "--version").out:
        pytest.skip("this curl was built without IDN")
    user = host.user("grüße")
    message_id = new_message_id()
    raw = message("Subject: Übung", *EIGHT_BIT, body=GREETING, message_id=message_id)
    file = tmp_path / "message.eml"
    file.write_bytes(raw)
    succeed(
        *(*curl(certificate), f"smtp://localhost:{host.ports.mx}/client.test"),
        *("--mail-from", "freund@example.org", "--mail-rcpt", user.address, "--upload-file", str(file)),
    )
    found = stored(host, message_id)
    assert found.raw == raw
    assert "SMTPUTF8" in found.parameters
    assert list(found.recipients) == [user.address]


def test_curl_names_who_wrote_a_message_that_it_hands_on(
    host: Host, user: User, certificate: str, tmp_path: Path
) -> None:
    message_id = new_message_id()
    file = tmp_path / "message.eml"
    file.write_bytes(message(sender=user.address, message_id=message_id))
    succeed(
        *(*curl(certificate), f"smtps://localhost:{host.ports.submissions}"),
        *("--user", f"{user.address}:{user.key}", "--mail-auth", "author@example.org"),
        *("--mail-from", user.address, "--mail-rcpt", user.address, "--upload-file", str(file)),
    )
    # curl puts brackets around it that RFC 4954 5 does not know
    assert stored(host, message_id).parameters["AUTH"] == "<author@example.org>"


def test_curl_verifies_and_expands_nothing(host: Host, user: User) -> None:
    url = f"smtp://localhost:{host.ports.mx}"
    answers = [
        succeed(program("curl"), "--silent", url, "--mail-rcpt", address).out
        for address in (user.address, "nobody@example.test")
    ]
    assert answers[0] == answers[1]
    assert answers[0].startswith("252 2.0.0 ")
    done = run(program("curl"), "--silent", url, "--mail-rcpt", user.address, "--request", "EXPN")
    assert done.code != 0
    assert user.address not in done.out


# swaks


def swaks(host: Host, listener: str) -> tuple[str, ...]:
    """swaks, going to one of the listeners."""
    return (program("swaks"), "--server", "localhost", "--port", str(port(host, listener)))


def swaks_login(user: User, certificate: str, listener: str) -> tuple[str, ...]:
    """Its options for TLS, the certificate checked, and for who sends."""
    return (
        *("--tls" if listener == "submission" else "--tlsc", "--tls-verify", "--tls-ca-path", certificate),
        *("--auth-user", user.address, "--from", user.address, "--to", user.address),
    )


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_submits(
    host: Host, user: User, certificate: str, tmp_path: Path, listener: str, mechanism: str
) -> None:
    message_id = new_message_id()
    raw = message(*EIGHT_BIT, body=GREETING, sender=user.address, message_id=message_id)
    file = tmp_path / "message.eml"
    file.write_bytes(raw)
    succeed(
        *(*swaks(host, listener), *swaks_login(user, certificate, listener)),
        *("--auth", mechanism, "--auth-password", user.key, "--data", f"@{file}"),
    )
    found = stored(host, message_id)
    assert (found.listener, found.tls, found.login) == (listener, "TLSv1.3", user.id)
    # swaks ends each message with one more line
    assert found.raw.removesuffix(b"\r\n") in {raw, raw.removesuffix(b"\r\n")}


def test_swaks_is_told_of_a_wrong_password(host: Host, user: User, certificate: str, listener: str) -> None:
    done = run(
        *(*swaks(host, listener), *swaks_login(user, certificate, listener)),
        *("--auth", "PLAIN", "--auth-password", "wrong"),
    )
    assert done.code == 28, done.text  # "error during AUTH"
    assert "535 5.7.8" in done.text


def test_swaks_pipelines_to_recipients_of_whom_one_is_refused(host: Host, user: User) -> None:
    message_id = new_message_id()
    other = host.user()
    done = succeed(
        *(*swaks(host, "mx"), "--tls", "--pipeline", "--from", "friend@example.org"),
        *("--to", f"{user.address},nobody@example.test,{other.address}"),
        *("--header", f"Message-Id: <{message_id}>"),
    )
    assert "550 5.1.1" in done.text
    assert set(stored(host, message_id).recipients) == {user.address, other.address}


def test_swaks_pipelines_to_nobody_who_is_there(host: Host) -> None:
    message_id = new_message_id()
    done = run(
        *(*swaks(host, "mx"), "--pipeline", "--from", "friend@example.org"),
        *("--to", "nobody@example.test,none@example.test", "--header", f"Message-Id: <{message_id}>"),
    )
    assert done.code == 24, done.text  # "all recipients were refused"
    assert all_stored(host, message_id) == []


def test_swaks_needs_smtputf8_for_internationalized_addresses(host: Host) -> None:
    user = host.user("grüße")
    done = run(*swaks(host, "mx"), "--from", "friend@example.org", "--to", user.address)
    assert done.code == 24, done.text
    assert "553 5.6.7" in done.text


@pytest.fixture(scope="session")
def proxied_host() -> Iterator[Host]:
    """A host that takes the word of proxies on this machine."""
    program("swaks")
    networks = {"Smtp__ProxyNetworks__0": "127.0.0.1", "Smtp__XclientNetworks__0": "127.0.0.1"}
    with TemporaryDirectory(prefix="relaymail-interop-") as folder:
        host = Host(Path(folder), {**PATIENT, **networks})
        try:
            host.start()
            yield host
        finally:
            host.remove()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("listener", ["mx", "submissions"])
def test_swaks_speaks_for_others_as_a_proxy(proxied_host: Host, listener: str, version: int) -> None:
    host = proxied_host
    user = host.user()
    message_id = new_message_id()
    login = swaks_login(user, str(host.data / "certificate.pem"), listener)
    sender = ("--from", "friend@example.org", "--to", user.address)
    succeed(
        *(*swaks(host, listener), "--proxy-version", str(version), "--proxy-family"),
        *(
            "TCP4" if version == 1 else "AF_INET",
            "--proxy-source",
            "192.0.2.7",
            "--proxy-source-port",
            "4711",
        ),
        *("--proxy-dest", "127.0.0.1", "--proxy-dest-port", str(port(host, listener))),
        *(sender if listener == "mx" else (*login, "--auth", "PLAIN", "--auth-password", user.key)),
        *("--header", f"Message-Id: <{message_id}>"),
    )
    assert client(host, message_id) == "192.0.2.7"


def test_swaks_speaks_for_others_with_xclient(proxied_host: Host) -> None:
    host = proxied_host
    user = host.user()
    message_id = new_message_id()
    succeed(
        *(*swaks(host, "mx"), "--proxy", f"TCP4 127.0.0.1 127.0.0.1 4711 {host.ports.mx}"),
        *("--xclient-addr", "192.0.2.8", "--xclient-name", "friend.example", "--from", "friend@example.org"),
        *("--to", user.address, "--header", f"Message-Id: <{message_id}>"),
    )
    assert client(host, message_id) == "192.0.2.8"


def client(host: Host, message_id: str) -> str:
    """The address a message came from."""
    (address,) = host.row("SELECT client_address FROM relaymail.message WHERE message_id = %s", message_id)
    return str(address)


# msmtp


def msmtp(host: Host, listener: str) -> tuple[str, ...]:
    """msmtp, going to one of the listeners; none of its files is read."""
    return (program("msmtp"), "--host=localhost", f"--port={port(host, listener)}", "--domain=client.test")


def msmtp_login(user: User, certificate: str, listener: str, mechanism: str, key: str) -> tuple[str, ...]:
    """Its options for TLS, the certificate checked, and for the login."""
    return (
        *("--tls=on", f"--tls-starttls={'on' if listener == 'submission' else 'off'}"),
        *(f"--tls-trust-file={certificate}", f"--auth={mechanism}", f"--user={user.address}"),
        *(f"--passwordeval=echo {key}", f"--from={user.address}"),
    )


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_msmtp_submits(host: Host, user: User, certificate: str, listener: str, mechanism: str) -> None:
    message_id = new_message_id()
    raw = message(
        *EIGHT_BIT, f"To: {user.address}", body=GREETING, sender=user.address, message_id=message_id
    )
    succeed(
        *(*msmtp(host, listener), *msmtp_login(user, certificate, listener, mechanism, user.key)),
        *("--set-date-header=off", "--dsn-notify=success,failure", "--dsn-return=headers", user.address),
        stdin=raw,
    )
    found = stored(host, message_id)
    assert (found.listener, found.tls, found.login) == (listener, "TLSv1.3", user.id)
    assert found.raw == raw
    assert found.parameters["RET"] == "HDRS"
    assert found.recipients == {user.address: DSN_OF_MSMTP}


def test_msmtp_is_told_of_a_wrong_password(host: Host, user: User, certificate: str, listener: str) -> None:
    done = run(
        *(*msmtp(host, listener), *msmtp_login(user, certificate, listener, "plain", "wrong"), user.address),
        stdin=message(),
    )
    assert done.code == 77, done.text  # EX_NOPERM
    assert "535 5.7.8" in done.err


def test_msmtp_needs_smtputf8_for_internationalized_addresses(host: Host) -> None:
    user = host.user("grüße")
    done = run(*msmtp(host, "mx"), "--from=freund@example.org", user.address, stdin=message())
    assert done.code == 65, done.text  # EX_DATAERR
    assert "553 5.6.7" in done.err


def test_msmtp_reads_what_the_host_offers(host: Host, certificate: str) -> None:
    done = succeed(
        *(*msmtp(host, "submission"), "--tls=on", f"--tls-trust-file={certificate}", "--serverinfo")
    )
    for offered in ("PIPELINING", "DSN", "SIZE 52428800", "PLAIN LOGIN"):
        assert offered in done.out, done.out


# s-nail


def s_nail(host: Host, certificate: str, listener: str, user: User, key: str) -> tuple[str, ...]:
    """s-nail without its files, sending in the foreground."""
    scheme = "smtp" if listener == "submission" else "smtps"
    login = f"{user.address}:{key}".replace("@", "%40").replace("/", "%2F").replace("+", "%2B")
    return (
        *(program("s-nail"), "-:/", "-S", "v15-compat", "-S", "sendwait", "-S", "ttycharset=utf-8"),
        *("-S", f"mta={scheme}://{login.replace('=', '%3D')}@localhost:{port(host, listener)}"),
        *("-S", "smtp-use-starttls", "-S", "smtp-auth=plain", "-S", "tls-verify=strict"),
        *("-S", "tls-ca-no-defaults", "-S", f"tls-ca-file={certificate}", "-S", "sendcharsets=utf-8"),
        *("-S", "mime-encoding=8bit", "-S", f"from={user.address}", "-r", user.address),
    )


def test_s_nail_submits(host: Host, user: User, certificate: str, listener: str) -> None:
    message_id = new_message_id()
    header = f"To: {user.address}\nSubject: Übung\nMessage-ID: <{message_id}>\n\n"
    text = header + GREETING.replace("\r\n", "\n")
    succeed(*s_nail(host, certificate, listener, user, user.key), "-t", stdin=text.encode())
    found = stored(host, message_id)
    assert (found.listener, found.tls, found.login) == (listener, "TLSv1.3", user.id)
    assert found.body == GREETING.encode()


def test_s_nail_is_told_of_a_wrong_password(host: Host, user: User, certificate: str, listener: str) -> None:
    done = run(
        *(*s_nail(host, certificate, listener, user, "wrong"), "-s", "Test", user.address), stdin=b"Hello\n"
    )
    assert done.code != 0
    assert "535" in done.err
