"""A Postfix on its own port and folders: the peer the host is measured against."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mydestination = example.test
local_transport = discard
default_transport = discard
local_recipient_maps =
alias_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
default_process_limit = 120
"""

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
discard unix - - n - - discard
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


SENDING = """\
mydestination =
default_transport = smtp
transport_maps = inline:{{ {routes} }}
smtp_destination_concurrency_limit = {per_domain}
qmgr_message_active_limit = 20000
in_flow_delay = 0
"""


class Postfix:
    """Accepts for ``example.test`` with the discard transport: queue file, fsync, then away with it."""

    name = "Postfix"

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._config = folder / "etc"

    def start(self) -> None:
        """Start it; needs root and Debian's ``postfix`` package."""
        if shutil.which("postfix") is None:
            raise SystemExit(
                "Postfix is not installed (Debian: apt-get install --no-install-recommends postfix)"
            )
        self._folder.chmod(0o755)
        for part in ("etc", "queue", "data"):
            (self._folder / part).mkdir(parents=True)
        shutil.chown(self._folder / "data", "postfix")
        (self._config / "main.cf").write_text(self._main())
        (self._config / "master.cf").write_text(self._master())
        self._postfix("start")
        wait_for_port(self.port)

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        self._postfix("stop")

    def _main(self) -> str:
        return MAIN.format(folder=self._folder)

    def _master(self) -> str:
        return MASTER.format(port=self.port)

    def _postfix(self, command: str) -> None:
        done = subprocess.run(
            ["postfix", "-c", str(self._config), command], capture_output=True, text=True, check=False
        )
        if done.returncode:
            log = self._folder / "log"
            raise SystemExit(f"postfix {command}: {done.stderr}{log.read_text() if log.exists() else ''}")


class SendingPostfix(Postfix):
    """Takes messages without sending them, and then sends them all.

    :param routes: where the mail of each domain goes, as ``[address]:port``.
    :param concurrency: connections in all; ``per_domain``: to one domain.
    """

    def __init__(
        self, folder: Path, port: int, routes: Mapping[str, str], concurrency: int, per_domain: int
    ) -> None:
        super().__init__(folder, port)
        self._routes = routes
        self._concurrency = concurrency
        self._per_domain = per_domain
        self._sending = False

    def fill(self, messages: int, octets: int) -> None:
        """Have it take messages, as many for each domain."""
        for domain in self._routes:
            command = ["smtp-source", "-s", "10", "-d", "-m", str(messages // len(self._routes))]
            command += ["-l", str(octets), "-f", "sender@example.test", "-t", f"user@{domain}"]
            subprocess.run([*command, f"127.0.0.1:{self.port}"], check=True)

    def send(self) -> None:
        """Begin to send them: the queue manager starts."""
        self._sending = True
        (self._config / "master.cf").write_text(self._master())
        self._postfix("reload")

    def _main(self) -> str:
        routes = ", ".join(f"{{ {domain} = smtp:{to} }}" for domain, to in self._routes.items())
        plain = "".join(
            line
            for line in super()._main().splitlines(keepends=True)
            if not line.startswith(("mydestination", "default_transport"))
        )
        return plain + SENDING.format(routes=routes, per_domain=self._per_domain)

    def _master(self) -> str:
        plain = super()._master()
        if not self._sending:
            plain = "".join(line for line in plain.splitlines(keepends=True) if not line.startswith("qmgr"))
        return plain + f"smtp unix - - n - {self._concurrency} smtp\n"


def wait_for_port(port: int, seconds: float = 60.0) -> None:
    """Wait until somebody greets there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
                if connection.recv(4) == b"220 ":
                    connection.sendall(b"QUIT\r\n")
                    connection.recv(100)
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on port {port} after {seconds:g} s")
