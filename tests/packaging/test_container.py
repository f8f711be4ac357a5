"""The container image, run as it says itself."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import smtplib
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import pytest

from tests.packaging.program import Program, deliver, running
from tests.support.polling import until
from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("RELAYMAIL_TEST_IMAGE", "")
BUILDAH = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

needs_image = pytest.mark.skipif(
    not (IMAGE and shutil.which("buildah")),
    reason="needs buildah, and the name of a built image in RELAYMAIL_TEST_IMAGE",
)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = "\n".join(
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")
    )
    lines = [line.split(maxsplit=1) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name.upper(), " ".join(rest.split())) for name, rest in lines]


def final_stage() -> list[tuple[str, str]]:
    """What comes behind the last FROM."""
    all_of_them = instructions()
    start = max(place for place, (name, _) in enumerate(all_of_them) if name == "FROM")
    return all_of_them[start:]


def argument(name: str) -> str:
    """The argument of the final stage's only instruction of this name."""
    (found,) = [rest for instruction, rest in final_stage() if instruction == name]
    return found


def test_the_image_is_made_in_two_stages_and_the_final_one_brings_no_compiler() -> None:
    assert [name for name, _ in instructions()].count("FROM") == 2
    copies = [rest for name, rest in final_stage() if name in {"COPY", "ADD"}]
    assert copies == ["--from=build /opt/relaymail /opt/relaymail"]
    for run in (rest for name, rest in final_stage() if name == "RUN"):
        for tool in ("gcc", "build-essential", "python3-dev", "pip"):
            assert tool not in run


def test_the_image_runs_as_a_user_with_a_fixed_number() -> None:
    uid, gid = argument("USER").split(":")
    assert int(uid) >= 1000
    assert int(gid) >= 1000
    (run,) = [rest for name, rest in final_stage() if name == "RUN"]
    assert f"--owner={uid} --group={gid} --mode=0700 /var/lib/relaymail" in run


def test_the_image_says_how_it_is_run_checked_and_stopped() -> None:
    assert json.loads(argument("ENTRYPOINT")) == ["twistd", "-n", "relaymail"]
    assert "CMD curl -sf http://localhost:8081/healthz" in argument("HEALTHCHECK")
    assert "curl" in argument("RUN")
    assert argument("STOPSIGNAL") == "SIGTERM"
    assert argument("EXPOSE").split() == ["25", "465", "587", "8081"]
    assert argument("VOLUME") == "/var/lib/relaymail"
    environment = dict(pair.split("=", 1) for pair in argument("ENV").split())
    assert environment["HealthCheck__Url"] == "http://+:8081"
    assert environment["Data__Directory"] == "/var/lib/relaymail"


def test_what_the_build_copies_is_not_kept_from_it() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    copied = [rest.split()[:-1] for name, rest in instructions() if name == "COPY" and "--from" not in rest]
    for source in chain.from_iterable(copied):
        assert f"!{source}" in ignored
        assert (ROOT / source).exists()


class Container:
    """A container made of the image, for as long as a test takes."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._log = folder / "container.log"
        self.submission, self.smtps, self.mx, self.health = free_ports(4)
        self._environ = {
            "Data__EmbeddedPostgres": "true",
            "Smtp__Port": str(self.submission),
            "Smtp__SecurePort": str(self.smtps),
            "Smtp__Mx__Port": str(self.mx),
            "Smtp__Mx__Enabled": "true",
            "Smtp__Mx__HostedDomains__0": "example.test",
            "HealthCheck__Url": f"http://+:{self.health}",
        }
        config = json.loads(buildah("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        self._command = [*config["Entrypoint"], *(config.get("Cmd") or [])]

    def host(self) -> AbstractContextManager[Program]:
        """The image's own entrypoint and command."""
        return running([*self._run(), *self._command], self._log, BUILDAH)

    def relaymail(self, command: str) -> str:
        """What the command line tool prints."""
        return buildah(*self._run()[1:], "relaymail", *shlex.split(command))

    def read(self, file: str) -> str:
        """The content of a file in the container."""
        return buildah(*self._run()[1:], "cat", file)

    def _run(self) -> list[str]:
        settings = [part for pair in self._environ.items() for part in ("--env", "=".join(pair))]
        return ["buildah", "run", *settings, self._name, "--"]


def buildah(*arguments: str) -> str:
    """Standard output of buildah."""
    return subprocess.run(
        ["buildah", *arguments], env=BUILDAH, check=True, capture_output=True, text=True
    ).stdout


def host_process(program: Program) -> int:
    """The pid of twistd below buildah, which forwards no signals."""
    pids = {program.process.pid}
    while pids:
        below: set[int] = set()
        for pid in pids:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                below.update(int(child) for child in children.read_text().split())
        for pid in below:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "twistd":
                return pid
        pids = below
    raise AssertionError(f"the host does not run: {program.output}")


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """A fresh container; removed afterwards."""
    name = buildah("from", "--pull-never", IMAGE).strip()
    yield Container(name, tmp_path)
    buildah("rm", name)


def subjects(container: Container) -> list[str]:
    """Subjects of the stored messages, newest first."""
    return [message["subject"] for message in json.loads(container.relaymail("message list --json"))]


@needs_image
def test_the_image_takes_mail_drains_and_comes_back_after_a_kill(container: Container) -> None:
    with container.host() as host:
        host.wait_for("relaymail is up")
        container.relaymail("user add demo@example.test")
        key = json.loads(container.relaymail("key create demo@example.test --name test --json"))["key"]
        certificate = container.read("/var/lib/relaymail/certificate.pem")
        with smtplib.SMTP("localhost", container.submission, timeout=120) as client:
            client.starttls(context=ssl.create_default_context(cadata=certificate))
            client.login("demo@example.test", key)
            client.sendmail("demo@example.test", ["demo@example.test"], "Subject: submission\n\nHello\n")
        deliver(container.mx, "mx")
        with urllib.request.urlopen(f"http://localhost:{container.health}/healthz/ready") as answer:
            assert answer.status == 200
        _kill(host_process(host))
        host.wait()
    with container.host() as host:
        host.wait_for("relaymail is up")
        assert subjects(container) == ["mx", "submission"]
        with smtplib.SMTP("127.0.0.1", container.mx, timeout=120) as client:
            client.ehlo("client.example.org")
            client.mail("friend@example.org")
            client.rcpt("demo@example.test")
            client.putcmd("data")
            assert client.getreply()[0] == 354
            client.send(b"Subject: drained\r\n\r\n")
            os.kill(host_process(host), signal.SIGTERM)
            host.wait_for("Draining 1 sessions")
            client.send(b"Hello\r\n.\r\n")
            assert client.getreply()[0] == 250
            assert client.getreply()[0] == 421
        assert host.wait() == 0
    with container.host() as host:
        host.wait_for("relaymail is up")
        assert subjects(container) == ["drained", "mx", "submission"]
        os.kill(host_process(host), signal.SIGTERM)
        assert host.wait() == 0


def _kill(host: int) -> None:
    """End the host and its PostgreSQL as the end of a container does: at once, all of them."""
    below = Path(f"/proc/{host}/task/{host}/children").read_text().split()
    for pid in [host, *map(int, below)]:
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 30)  # type: ignore[misc]
