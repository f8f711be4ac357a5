"""A program under test: its output in a file, and an end that is certain."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.polling import until

LIMIT = 180.0
"""Seconds after which a program has hung."""


class Program:
    """A running program and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """What it wrote to standard output and standard error."""
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, limit: float = LIMIT) -> None:
        """Return when it has said ``text``."""
        until(lambda: text in self.output or self.process.poll() is not None, limit, lambda: self.output)
        assert text in self.output, f"ended with {self.process.returncode}: {self.output}"

    def wait(self, limit: float = LIMIT) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit:g} s: {self.output}") from None

    def stop(self, limit: float = LIMIT) -> int:
        """Send SIGTERM; its exit code."""
        self.process.terminate()
        return self.wait(limit)


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    environ: Mapping[str, str],
    *,
    pass_fds: Sequence[int] = (),
) -> Iterator[Program]:
    """Run ``command`` with its output in ``log``; whatever still runs at the end is killed."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
        )
    try:
        yield Program(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def deliver(port: int, subject: str, address: str = "127.0.0.1") -> str:
    """Send a message to the demo user by way of the MX; the reply's text."""
    with smtplib.SMTP(address, port, timeout=LIMIT) as client:
        client.ehlo("client.example.org")
        client.mail("friend@example.org")
        client.rcpt("demo@example.test")
        code, text = client.data(f"From: friend@example.org\r\nSubject: {subject}\r\n\r\nHello\r\n")
    assert code == 250, text
    return text.decode()
