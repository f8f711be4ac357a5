"""The host as others meet it: a process started with ``twistd -n relaymail``, ports, a key, commands."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen
from uuid import UUID, uuid4

import bcrypt
import psycopg2
from psycopg2.extras import register_uuid

from tests.end_to_end.wire import LIMIT, Wire
from tests.support.polling import until
from tests.support.ports import free_ports

register_uuid()

BIN = Path(sys.executable).parent
UP = "relaymail is up"
READY = "Ready to take mail"
DEMO_READY = "Ctrl-C stops it"
START_LIMIT = 180.0
STOP_LIMIT = 120.0

_NOT_OURS = re.compile(r"__|^(NOTIFY_|LISTEN_)", re.IGNORECASE)


@dataclass(frozen=True)
class Ports:
    """One for each listener."""

    submission: int
    submissions: int
    mx: int
    health: int

    @classmethod
    def free(cls) -> Ports:
        """Four that nobody listens on right now."""
        return cls(*free_ports(4))


@dataclass(frozen=True)
class User:
    """A user as the API makes them."""

    id: UUID
    address: str
    key: str


class Host:
    """One host with its data folder, which outlives the process."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str] | None = None, *, options: Sequence[str] = ("--demo",)
    ) -> None:
        """
        :param folder: a folder of the test's; short, as a Unix socket's path is in it.
        :param environ: settings on top of those of the ports.
        """
        self.data = folder / "data"
        self.options = [*options, "--data", str(self.data)]
        self.demo = "--demo" in options
        self.ports = Ports.free()
        self.environ = dict(environ or {})
        self._log = folder / "host.log"
        self._began = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._url: str | None = self.environ.get("ConnectionStrings__DefaultConnection")

    # The process

    def environment(self) -> dict[str, str]:
        """The environment it runs in: ours, but for settings and what systemd would set."""
        return {
            **{name: value for name, value in os.environ.items() if not _NOT_OURS.search(name)},
            "Smtp__Port": str(self.ports.submission),
            "Smtp__SecurePort": str(self.ports.submissions),
            "Smtp__Mx__Port": str(self.ports.mx),
            "HealthCheck__Url": f"http://localhost:{self.ports.health}",
            **self.environ,
        }

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        assert self.process is None or self.process.poll() is not None
        with self._log.open("ab") as log:
            self._began = log.tell()
            self.process = subprocess.Popen(
                [str(BIN / "twistd"), "-n", "relaymail", *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=self.environment(),
                start_new_session=True,
            )

    def start(self) -> None:
        """Start, and wait until mail is taken."""
        self.launch()
        for text in (UP, READY, DEMO_READY) if self.demo else (UP, READY):
            self.until_logged(text)

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process is not None
        return self.process.pid

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT for the whole process group, as a terminal sends it."""
        os.killpg(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        """SIGTERM, as systemd and Docker send it."""
        os.kill(self.pid, signal.SIGTERM)

    def ended(self, limit: float = STOP_LIMIT) -> int:
        """The exit code, once the process has ended by itself."""
        assert self.process is not None
        return self.process.wait(limit)

    def stop(self) -> int:
        """SIGTERM and wait; the exit code."""
        self.terminate()
        return self.ended()

    def kill(self) -> None:
        """``kill -9``: the embedded PostgreSQL is left behind."""
        os.kill(self.pid, signal.SIGKILL)
        self.ended()

    def restart(self, environ: Mapping[str, str] | None = None) -> None:
        """Stop if it runs, and start on the same data, with other settings if some are given."""
        if self.running:
            self.stop()
        if environ is not None:
            self.environ = dict(environ)
        self.start()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None

    def remove(self) -> None:
        """Leave no process behind, whatever state it is in."""
        if self.running:
            self.kill()
        self.kill_postgres()

    def kill_postgres(self) -> None:
        """``kill -9`` of every process of the embedded PostgreSQL."""
        for pid in self.postgres_processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # its parent's end was its own

    def postgres_processes(self) -> list[int]:
        """The processes that run in the data folder."""
        return [pid for pid in processes() if _works_in(pid, self.data)]

    # What it says

    @property
    def log(self) -> str:
        """Everything it printed since it was started last."""
        with self._log.open("rb") as log:
            log.seek(self._began)
            return log.read().decode()

    def until_logged(self, text: str, limit: float = START_LIMIT) -> None:
        """Wait until it has printed ``text``."""
        end = time.monotonic() + limit
        while text not in self.log:
            assert self.running, f"the host ended without {text!r}:\n{self.log}"
            assert time.monotonic() < end, f"no {text!r} within {limit:g} s:\n{self.log}"
            time.sleep(0.02)

    def memory(self) -> int:
        """Resident octets of its own: without what is mapped of files."""
        return self._status("RssAnon")

    def peak_memory(self) -> int:
        """The most octets resident since the start or :meth:`forget_peak`, mapped files included."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Begin to measure :meth:`peak_memory` anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, field: str) -> int:
        match = re.search(
            rf"^{field}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE
        )
        assert match is not None
        return int(match[1]) * 1024

    def health(self) -> dict[str, Any]:
        """What each check of ``/healthz`` finds, by name; those of the network may fail where is none."""
        try:
            with urlopen(f"http://localhost:{self.ports.health}/healthz", timeout=LIMIT) as answer:
                report = json.load(answer)
        except HTTPError as error:
            report = json.load(error)
        return {check["name"]: check for check in report["checks"]}

    # Its command line and its database

    def cli(self, *arguments: str, code: int = 0) -> bytes:
        """What ``relaymail`` prints, told about this host."""
        done = subprocess.run(
            [str(BIN / "relaymail"), *self.options, *arguments],
            cwd=self._log.parent,
            env=self.environment(),
            capture_output=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stderr.decode())
        return done.stdout

    def export(self, message: str) -> bytes:
        """The bytes of a stored message."""
        return self.cli("message", "export", message)

    @property
    def url(self) -> str:
        """The database's ``postgresql://`` URL."""
        if self._url is None:
            self._url = self.cli("db", "url").decode().strip()
        return self._url

    def rows(self, sql: str, *params: object) -> list[tuple[Any, ...]]:
        """Run one statement beside the host."""
        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, params)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def row(self, sql: str, *params: object) -> tuple[Any, ...]:
        """The only row."""
        (row,) = self.rows(sql, *params)
        return row

    def user(self, name: str = "user", domain: str = "example.test") -> User:
        """A new user with a key, made as the API makes them."""
        user_id, key = uuid4(), base64.b64encode(secrets.token_bytes(32)).decode()
        address = f"{name}.{secrets.token_hex(4)}@{domain}"
        self.rows(
            'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt")'
            " VALUES (%s, %s, 'https://issuer.test', %s, now())",
            user_id,
            str(user_id),
            address,
        )
        # The least cost bcrypt knows: the host does what the hash says
        digest = bcrypt.hashpw(key.encode(), bcrypt.gensalt(4)).decode()
        self.rows(
            'INSERT INTO public."SmtpApiKeys" ("Id", "UserId", "Name", "KeyHash", "KeyPrefix", "Scopes",'
            " \"CreatedAt\") VALUES (%s, %s, 'test', %s, %s, '[\"smtp\"]', now())",
            uuid4(),
            user_id,
            digest,
            key[:12],
        )
        return User(user_id, address, key)

    def address(self, user: User, address: str, *, verified: bool = True) -> str:
        """Give a user a further address."""
        self.rows(
            'INSERT INTO public."UserEmailAddresses" ("Id", "UserId", "Address", "IsVerified", "AddedAt")'
            " VALUES (%s, %s, %s, %s, now())",
            uuid4(),
            user.id,
            address,
            verified,
        )
        return address

    def emails(self, message: str) -> list[UUID]:
        """The rows of ``Emails`` made of a message."""
        (ids,) = self.row("SELECT email_ids FROM relaymail.message WHERE id = %s", UUID(message))
        return [id if isinstance(id, UUID) else UUID(id) for id in ids]

    def email(self, message: str) -> UUID:
        """The only one."""
        (email,) = self.emails(message)
        return email

    def readers(self, message: str) -> dict[UUID, set[UUID]]:
        """For each row of ``Emails`` made of a message, the users who have it in a mailbox."""
        return {
            email: {
                user
                for (user,) in self.rows(
                    'SELECT "UserId" FROM public."EmailRecipients" WHERE "EmailId" = %s'
                    ' AND "UserId" IS NOT NULL',
                    email,
                )
            }
            for email in self.emails(message)
        }

    def stored(self, message_id: str) -> int:
        """How often a message with this Message-ID is stored."""
        (count,) = self.row("SELECT count(*) FROM relaymail.message WHERE message_id = %s", message_id)
        return int(count)

    # Connections

    def mx(self, source: str = "") -> Wire:
        """A connection to the MX listener, EHLO said."""
        wire = Wire(self.ports.mx, source=source)
        wire.hello()
        return wire

    def submission(self, user: User, source: str = "") -> Wire:
        """A connection to submission, TLS up and logged in."""
        wire = Wire(self.ports.submission, source=source)
        wire.hello()
        wire.starttls()
        answer = wire.login(user.address, user.key)
        assert answer.start == "235 2.7.0", answer
        return wire

    def smtplib(self, user: User, *, implicit: bool = False) -> smtplib.SMTP:
        """smtplib on submission, TLS up with the certificate checked, not yet logged in."""
        context = self.trust()
        if implicit:
            return smtplib.SMTP_SSL("localhost", self.ports.submissions, context=context, timeout=LIMIT)
        client = smtplib.SMTP("localhost", self.ports.submission, timeout=LIMIT)
        client.starttls(context=context)
        return client

    def trust(self) -> ssl.SSLContext:
        """A context that trusts the development certificate and nothing else."""
        return ssl.create_default_context(cafile=str(self.data / "certificate.pem"))

    def deliver(self, raw: bytes, *recipients: str, sender: str = "friend@example.org") -> str:
        """Send a message over the MX; its id."""
        with self.mx() as wire:
            return wire.message(raw, sender, *recipients).id

    def submit(self, raw: bytes, user: User, *recipients: str) -> str:
        """Send a message as ``user``; its id."""
        with self.submission(user) as wire:
            return wire.message(raw, user.address, *recipients).id

    def until_open(self, port: int | None = None) -> None:
        """Wait until the MX listener greets with 220."""
        until(lambda: greets(port or self.ports.mx) == 220, START_LIMIT)


def greets(port: int) -> int | None:
    """The code a listener greets with; ``None`` where nobody answers."""
    try:
        with Wire(port) as wire:
            assert wire.greeting is not None
            return wire.greeting.code
    except OSError:
        return None


def processes() -> list[int]:
    """All of the machine."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _works_in(pid: int, folder: Path) -> bool:
    try:
        directory = os.readlink(f"/proc/{pid}/cwd")
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return Path(directory).is_relative_to(folder.resolve()) and state != "Z"
