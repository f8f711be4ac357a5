"""Mail servers of others, each on folders and ports of its own, that hand on to a host of ours."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pytest

from tests.end_to_end.wire import Wire, stuffed
from tests.interop.programs import needs, program, succeed
from tests.support.polling import until
from tests.support.ports import free_port

ELSEWHERE = "frozen.test"
"""A second domain, which goes to another port of the machine than everything else."""


class Relay(ABC):
    """Takes mail and delivers it to the MX at ``port``, mail for :data:`ELSEWHERE` to the one there."""

    name: ClassVar[str]

    def __init__(self, folder: Path, port: int, elsewhere: int) -> None:
        self.folder = folder
        self.port = port
        self.elsewhere = elsewhere

    @abstractmethod
    def start(self) -> None:
        """Get ready to take mail."""

    @abstractmethod
    def stop(self) -> None:
        """End every process."""

    @abstractmethod
    def send(self, raw: bytes, sender: str, recipients: Iterable[str]) -> None:
        """Hand over a message.

        :param sender: as it stands behind ``MAIL FROM:``, brackets and parameters included.
        :param recipients: as they stand behind ``RCPT TO:``.
        """

    @abstractmethod
    def retry(self) -> None:
        """Try at once what is in the queue."""

    @abstractmethod
    def log(self) -> str:
        """What it logged."""

    @abstractmethod
    def queued(self) -> int:
        """How many messages are in its queue."""


POSTFIX_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = relay.example.org
mydestination =
local_recipient_maps =
alias_maps =
relayhost = [127.0.0.1]:{port}
transport_maps = inline:{{ {{ frozen.test = smtp:[127.0.0.1]:{elsewhere} }} }}
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_limit = 3000
smtputf8_enable = yes
smtp_tls_security_level = may
smtp_destination_recipient_limit = 2000
smtp_host_lookup = native
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
"""

POSTFIX_MASTER = """\
127.0.0.1:{own} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Relay):
    """Debian's ``postfix``; needs root."""

    name = "Postfix"

    def start(self) -> None:
        program("postfix")
        self._own = free_port()
        self.folder.chmod(0o755)
        for part in ("etc", "queue", "data"):
            (self.folder / part).mkdir()
        shutil.chown(self.folder / "data", "postfix")
        places = {"folder": self.folder, "port": self.port, "elsewhere": self.elsewhere, "own": self._own}
        (self.folder / "etc" / "main.cf").write_text(POSTFIX_MAIN.format(**places))
        (self.folder / "etc" / "master.cf").write_text(POSTFIX_MASTER.format(**places))
        self._command("postfix", "start")
        until(self._listens)

    def stop(self) -> None:
        self._command("postfix", "stop")

    def send(self, raw: bytes, sender: str, recipients: Iterable[str]) -> None:
        with Wire(self._own) as wire:
            wire.hello("sender.example")
            commands = [f"MAIL FROM:{sender}", *(f"RCPT TO:{recipient}" for recipient in recipients), "DATA"]
            wire.send("".join(f"{command}\r\n" for command in commands).encode())
            for command in commands:
                answer = wire.reply()
                assert answer.code in {250, 354}, (command, answer)
            wire.send(stuffed(raw))
            assert wire.reply().code == 250
            wire.command("QUIT")

    def retry(self) -> None:
        self._command("postqueue", "-f")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def queued(self) -> int:
        waiting = ("maildrop", "incoming", "active", "deferred")
        return sum(
            len([found for found in (self.folder / "queue" / queue).rglob("*") if found.is_file()])
            for queue in waiting
        )

    def _command(self, name: str, *arguments: str) -> None:
        succeed(program(name, "postfix"), "-c", str(self.folder / "etc"), *arguments)

    def _listens(self) -> bool:
        try:
            Wire(self._own).close()
        except OSError:
            return False
        return True


EXIM = """\
primary_hostname = relay.example.org
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
exim_path = {binary}
exim_user = {user}
exim_group = {user}
never_users =
keep_environment =
smtp_enforce_sync = false
dsn_advertise_hosts = *
acl_smtp_rcpt = accept
recipients_max = 0
begin routers
elsewhere:
  driver = manualroute
  domains = frozen.test
  transport = out
  route_list = * 127.0.0.1::{elsewhere}
  self = send
all:
  driver = manualroute
  transport = out
  route_list = * 127.0.0.1::{port}
  self = send
begin transports
out:
  driver = smtp
  max_rcpt = 0
begin retry
* * F,1h,1s
"""
EXIM_USER = 59_993
"""The numeric user that Exim runs as, beside root; nobody else's."""


class Exim(Relay):
    """Debian's ``exim4``, installed or unpacked; needs root.

    It refuses to start on a machine without Debian's user for it: then it gets a view of ``/etc`` with one.
    """

    name = "Exim"

    def start(self) -> None:
        self._binary = program("exim4", "exim4-daemon-light", "RELAYMAIL_EXIM")
        self._prefix: tuple[str, ...] = ()
        self.folder.chmod(0o755)
        for part in ("spool", "log"):
            (self.folder / part).mkdir()
            os.chown(self.folder / part, EXIM_USER, EXIM_USER)
        places = {"folder": self.folder, "port": self.port, "elsewhere": self.elsewhere}
        (self.folder / "conf").write_text(EXIM.format(**places, user=EXIM_USER, binary=self._binary))
        self._pretend_user()

    def _pretend_user(self) -> None:
        mounts = []
        for name, line in (
            ("passwd", f"Debian-exim:x:{EXIM_USER}:{EXIM_USER}::/nonexistent:/usr/sbin/nologin\n"),
            ("group", f"Debian-exim:x:{EXIM_USER}:\n"),
        ):
            known = Path("/etc", name).read_text()
            if "Debian-exim:" in known:
                return
            (self.folder / name).write_text(known + line)
            mounts.append(f"mount --bind {self.folder / name} /etc/{name}")
        unshare = program("unshare", "util-linux")
        needs("Exim needs its user Debian-exim, or CAP_SYS_ADMIN to pretend", unshare, "--mount", "true")
        script = " && ".join([*mounts, 'exec "$@"'])
        self._prefix = (unshare, "--mount", "sh", "-c", script, "sh")

    def stop(self) -> None:
        """Nothing runs but what delivers, and that ends by itself."""

    def send(self, raw: bytes, sender: str, recipients: Iterable[str]) -> None:
        commands = [
            "EHLO sender.example",
            f"MAIL FROM:{sender}",
            *(f"RCPT TO:{recipient}" for recipient in recipients),
            "DATA",
        ]
        session = "".join(f"{command}\r\n" for command in commands).encode() + stuffed(raw) + b"QUIT\r\n"
        done = succeed(*self._exim("-odf", "-bs"), stdin=session)
        assert " OK id=" in done.out, done.text

    def retry(self) -> None:
        succeed(*self._exim("-qff"))

    def log(self) -> str:
        found = self.folder / "log" / "main"
        return found.read_text() if found.exists() else ""

    def queued(self) -> int:
        return int(succeed(*self._exim("-bpc")).out)

    def _exim(self, *arguments: str) -> tuple[str, ...]:
        return (*self._prefix, self._binary, "-C", str(self.folder / "conf"), *arguments)


RELAYS: tuple[type[Relay], ...] = (Postfix, Exim)


def need_root(name: str) -> None:
    """Skip the test where it may not change users."""
    if os.geteuid() != 0:
        pytest.skip(f"{name} needs root")
