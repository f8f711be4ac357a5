"""Our host on its own ports and folder, with an embedded PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.bench.postfix import wait_for_port
from tests.support.ports import free_port

TICK = os.sysconf("SC_CLK_TCK")


class Relaymail:
    """``twistd -n relaymail --demo``."""

    name = "relaymail"

    def __init__(
        self, folder: Path, port: int, *, secure_port: int = 0, settings: Mapping[str, str] | None = None
    ) -> None:
        """
        :param port: the MX's.
        :param secure_port: of submission with implicit TLS; 0: it is off.
        :param settings: variables of the environment on top of those of the ports.
        """
        self.port = port
        self.secure_port = secure_port
        self._settings = settings or {}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it takes mail."""
        settings = {
            "Smtp__Mx__Port": str(self.port),
            "Smtp__Port": str(free_port()),
            "Smtp__SecurePort": str(self.secure_port),
            "HealthCheck__Url": f"http://localhost:{free_port()}",
            "Smtp__Limits__MessagesPerSession": "0",
            **self._settings,
        }
        command = [str(Path(sys.executable).parent / "twistd"), "-n", "relaymail", "--demo"]
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data", str(self._folder / "data")],
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
        wait_for_port(self.port)

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def url(self) -> str:
        """Of its database."""
        command = [
            str(Path(sys.executable).parent / "relaymail"),
            "--demo",
            "--data",
            str(self._folder / "data"),
        ]
        done = subprocess.run([*command, "db", "url"], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def memory(self) -> int:
        """Resident octets of the host."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def cpu(self) -> tuple[float, float]:
        """Seconds of CPU used so far: by the host, and by PostgreSQL."""
        assert self._process is not None
        postmaster = int((self._folder / "data/postgres/postmaster.pid").read_text().split()[0])
        children = subprocess.run(
            ["pgrep", "-P", str(postmaster)], capture_output=True, text=True, check=False
        ).stdout.split()
        postgres = [postmaster, *(int(pid) for pid in children)]
        return _cpu(self._process.pid), sum(_cpu(pid) for pid in postgres)


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK
