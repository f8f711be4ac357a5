"""Programs of others as the next host: smtp-sink in its moods, Postfix and Exim with and without STARTTLS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.end_to_end.outbound import Internet, attempts, internet
from tests.interop.programs import needs, program, succeed
from tests.interop.relays import EXIM_USER, need_root
from tests.support.polling import until


class Sender(NamedTuple):
    """A host that sends to what a test puts on the internet."""

    host: Host
    net: Internet
    user: User

    def address(self) -> str:
        """A loopback address for a next host."""
        count = next(_NUMBERS)
        return f"127.0.3.{count}"

    def send(self, domain: str, address: str) -> str:
        """Send a message to a domain whose mail host has this address; its id."""
        self.net.zones.a(f"mx.{domain}", address)
        self.net.zones.mx(domain, f"10 mx.{domain}")
        raw = message("Subject: Hello", sender=self.user.address, body="One\r\n.\r\nTwo\r\n")
        return self.host.submit(raw, self.user, f"reader@{domain}")

    def first_try(self, message_id: str) -> tuple[str, str, str | None]:
        """Outcome, phase and status of the first try."""

        def tries() -> list[tuple[str, str, str | None]]:
            return [
                (outcome, phase, status)
                for outcome, phase, status, _ in attempts(self.host, message_id)
                if outcome != "running"
            ]

        until(lambda: bool(tries()))
        return tries()[0]

    def tls(self, message_id: str) -> str | None:
        """What the message was delivered under."""
        until(lambda: bool(self._delivered(message_id)))
        return self._delivered(message_id)[0][0]

    def _delivered(self, message_id: str) -> list[tuple[str | None]]:
        return self.host.rows(
            "SELECT tls FROM relaymail.attempts WHERE message_id = %s AND outcome = 'delivered'", message_id
        )


_NUMBERS = iter(range(1, 250))


@pytest.fixture(scope="module")
def sender() -> Iterator[Sender]:
    """One for all tests here."""
    with TemporaryDirectory(prefix="relaymail-interop-") as folder, internet() as net:
        host = Host(Path(folder), {**net.settings, "OutboundMail__SmtpTimeoutSeconds": "10"})
        try:
            host.start()
            yield Sender(host, net, host.user())
        finally:
            host.remove()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ("delivered", "final-dot")),
        ("-p", ("delivered", "final-dot")),  # no PIPELINING
        ("-e", ("delivered", "final-dot")),  # no ESMTP
        ("-8", ("delivered", "final-dot")),  # no 8BITMIME
        ("-E", ("delivered", "final-dot")),  # no ENHANCEDSTATUSCODES
        ("-a", ("delivered", "final-dot")),  # no AUTH
        ("-q helo,ehlo", ("deferred", "ehlo")),
        ("-q mail", ("deferred", "mail")),
        ("-q rcpt", ("deferred", "rcpt")),
        ("-q data", ("deferred", "data")),
        ("-q .", ("in doubt", "final-dot")),
        ("-r connect", ("deferred", "greeting")),
        ("-r mail", ("deferred", "mail")),
        ("-r rcpt", ("deferred", "rcpt")),
        ("-r data", ("deferred", "data")),
        ("-r .", ("deferred", "final-dot")),
        ("-f connect", ("deferred", "greeting")),
        ("-f mail", ("failed", "mail")),
        ("-f rcpt", ("failed", "rcpt")),
        ("-f data", ("failed", "data")),
        ("-f .", ("failed", "final-dot")),
        ("-p -f rcpt", ("failed", "rcpt")),
        ("-p -q .", ("in doubt", "final-dot")),
    ],
)
def test_smtp_sink_in_every_mood(sender: Sender, options: str, expected: tuple[str, str]) -> None:
    need_root("smtp-sink")
    address = sender.address()
    place = f"{address}:{sender.net.port}"
    command = [program("smtp-sink", "postfix"), "-u", "nobody", *options.split(), place, "10"]
    sink = subprocess.Popen(command)
    try:
        until(lambda: _listens(address, sender.net.port))
        message_id = sender.send(f"{address.replace('.', '-')}.test", address)
        assert sender.first_try(message_id)[:2] == expected
    finally:
        sink.terminate()
        sink.wait()


POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = mx.postfix.test
mydestination = {domain}
local_recipient_maps =
alias_maps =
local_transport = discard
inet_interfaces = loopback-only
inet_protocols = ipv4
smtpd_relay_restrictions = permit_auth_destination, reject
smtpd_recipient_restrictions =
smtpd_tls_loglevel = 1
{tls}
"""
POSTFIX_TLS = """\
smtpd_tls_security_level = may
smtpd_tls_cert_file = {file}
smtpd_tls_key_file = {file}
"""
POSTFIX_MASTER = """\
{address}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
discard unix - - n - - discard
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@pytest.mark.parametrize("tls", [True, False])
def test_postfix_takes_it(sender: Sender, tls: bool) -> None:
    need_root("Postfix")
    postfix = program("postfix")
    address, domain = sender.address(), f"postfix-{'tls' if tls else 'clear'}.test"
    certificate = sender.host.data / "certificate.pem"
    with TemporaryDirectory(prefix="relaymail-postfix-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("etc", "queue", "data"):
            (folder / part).mkdir()
        shutil.chown(folder / "data", "postfix")
        shutil.copy(certificate, folder / "certificate.pem")
        (folder / "etc" / "main.cf").write_text(
            POSTFIX_MAIN.format(
                folder=folder,
                domain=domain,
                tls=POSTFIX_TLS.format(file=folder / "certificate.pem") if tls else "",
            )
        )
        (folder / "etc" / "master.cf").write_text(
            POSTFIX_MASTER.format(address=address, port=sender.net.port)
        )
        succeed(postfix, "-c", str(folder / "etc"), "start")
        try:
            until(lambda: _listens(address, sender.net.port))
            message_id = sender.send(domain, address)
            facts = sender.tls(message_id)
            log = folder / "log"
            until(lambda: "status=sent" in log.read_text())
        finally:
            succeed(postfix, "-c", str(folder / "etc"), "stop")
        if tls:
            assert facts is not None
            assert facts.startswith("TLSv1.3")
            assert "(nothing)" in facts
            assert "TLS connection established from" in log.read_text()
        else:
            assert facts is None


EXIM = """\
primary_hostname = mx.exim.test
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
exim_path = {binary}
exim_user = {user}
exim_group = {user}
never_users =
keep_environment =
local_interfaces = {address}
daemon_smtp_ports = {port}
acl_smtp_rcpt = accept
acl_smtp_data = accept
{tls}
begin routers
away:
  driver = redirect
  data = :blackhole:
begin transports
begin retry
* * F,1h,1s
"""


@pytest.mark.parametrize("tls", [True, False])
def test_exim_takes_it(sender: Sender, tls: bool) -> None:
    need_root("Exim")
    binary = program("exim4", "exim4-daemon-light", "RELAYMAIL_EXIM")
    address, domain = sender.address(), f"exim-{'tls' if tls else 'clear'}.test"
    with TemporaryDirectory(prefix="relaymail-exim-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copy(sender.host.data / "certificate.pem", folder / "certificate.pem")
        for part in ("spool", "log", "certificate.pem"):
            if "." not in part:
                (folder / part).mkdir()
            os.chown(folder / part, EXIM_USER, EXIM_USER)
        offered = (
            f"tls_advertise_hosts = *\ntls_certificate = {folder}/certificate.pem"
            if tls
            else "tls_advertise_hosts ="
        )
        (folder / "conf").write_text(
            EXIM.format(
                folder=folder,
                binary=binary,
                user=EXIM_USER,
                address=address,
                port=sender.net.port,
                tls=offered,
            )
        )
        exim = subprocess.Popen([*_pretending(folder), binary, "-C", str(folder / "conf"), "-bdf"])
        try:
            until(lambda: _listens(address, sender.net.port))
            facts = sender.tls(sender.send(domain, address))
        finally:
            exim.terminate()
            exim.wait()
        assert (facts is not None) == tls


def _pretending(folder: Path) -> tuple[str, ...]:
    """Exim refuses to start without Debian's user for it: give it a view of ``/etc`` with one."""
    known = Path("/etc/passwd").read_text()
    if "Debian-exim:" in known:
        return ()
    (folder / "passwd").write_text(
        f"{known}Debian-exim:x:{EXIM_USER}:{EXIM_USER}::/nonexistent:/usr/sbin/nologin\n"
    )
    (folder / "group").write_text(f"{Path('/etc/group').read_text()}Debian-exim:x:{EXIM_USER}:\n")
    unshare = program("unshare", "util-linux")
    needs("Exim needs its user Debian-exim, or CAP_SYS_ADMIN to pretend", unshare, "--mount", "true")
    mounts = [f"mount --bind {folder / part} /etc/{part}" for part in ("passwd", "group")]
    return (unshare, "--mount", "sh", "-c", " && ".join([*mounts, 'exec "$@"']), "sh")


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 5.0).close()
    except OSError:
        return False
    return True
