"""Listening sockets from systemd."""

from __future__ import annotations

import json
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.program import Program, deliver, running
from tests.support.ipv6 import needs_ipv6
from tests.support.ports import free_port, free_ports

TWISTD = str(Path(sys.executable).with_name("twistd"))
NAMES = ("submission", "smtps", "mx")

# What systemd does between fork and exec (sd_listen_fds(3))
ACTIVATE = """
import os, sys
names = sys.argv[1]
given = [int(number) for number in sys.argv[2].split(",")]
for place, descriptor in enumerate([os.dup2(number, 100 + number) for number in given]):
    os.dup2(descriptor, 3 + place, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=names)
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of a host whose listeners come from systemd."""
    health = free_port()
    endpoint = "systemd:domain=INET6:name="
    return {
        **os.environ,
        "HealthCheck__Url": f"http://127.0.0.1:{health}",
        "Smtp__Endpoints__Submission": endpoint + "submission",
        "Smtp__Endpoints__Smtps": endpoint + "smtps",
        "Smtp__Endpoints__Mx": endpoint + "mx",
    }


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """Three listening sockets for IPv6 and IPv4, as ``BindIPv6Only=both`` makes them."""
    made = [socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) for _ in NAMES]
    yield made
    for listening in made:
        listening.close()


def activated(
    sockets: Sequence[socket.socket], data: Path, log: Path, environ: Mapping[str, str]
) -> AbstractContextManager[Program]:
    """The host, with sockets as systemd hands them over."""
    numbers = [listening.fileno() for listening in sockets]
    command = [sys.executable, "-c", ACTIVATE, ":".join(NAMES), ",".join(map(str, numbers))]
    host = [TWISTD, "-n", "relaymail", "--demo", "--data", str(data)]
    return running([*command, *host], log, environ, pass_fds=numbers)


def subjects(data: Path, environ: Mapping[str, str]) -> set[str]:
    """Subjects of the stored messages."""
    listing = subprocess.run(
        [sys.executable, "-m", "relaymail.cli", "--demo", "--data", str(data), "message", "list", "--json"],
        check=True,
        capture_output=True,
        env=dict(environ),
    )
    return {message["subject"] for message in json.loads(listing.stdout)}


def smtp_check(environ: Mapping[str, str]) -> Any:
    """The report of the check named ``smtp``."""
    try:
        with urllib.request.urlopen(f"{environ['HealthCheck__Url']}/healthz", timeout=120) as answer:
            report = json.load(answer)
    except urllib.error.HTTPError as error:
        report = json.load(error)
    return next(check for check in report["checks"] if check["name"] == "smtp")


@needs_ipv6
def test_every_listener_takes_mail_on_its_socket_and_restarts_refuse_nobody(
    sockets: list[socket.socket], environ: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    submission, smtps, mx = (listening.getsockname()[1] for listening in sockets)
    with activated(sockets, data, tmp_path / "first.log", environ) as host:
        host.wait_for("Ctrl-C stops it")
        key = (data / "demo-key").read_text().strip()
        tls = ssl.create_default_context(cafile=str(data / "certificate.pem"))
        demo = "demo@example.test"
        with smtplib.SMTP("localhost", submission) as client:
            client.starttls(context=tls)
            client.login(demo, key)
            client.sendmail(demo, [demo], "Subject: submission\n\nHello\n")
        with smtplib.SMTP_SSL("localhost", smtps, context=tls) as client:
            client.login(demo, key)
            client.sendmail(demo, [demo], "Subject: smtps\n\nHello\n")
        deliver(mx, "mx")
        assert smtp_check(environ)["status"] == "Healthy", smtp_check(environ)
        assert host.stop() == 0
    # Nobody runs now, and still the connection is taken: it waits in the socket
    waiting = socket.create_connection(("127.0.0.1", mx))
    with waiting, activated(sockets, data, tmp_path / "second.log", environ) as host:
        waiting.settimeout(120)
        assert waiting.recv(100).startswith(b"220 ")
        waiting.sendall(b"QUIT\r\n")
        deliver(mx, "after the restart")
        host.wait_for("Ctrl-C stops it")
        assert subjects(data, environ) == {"submission", "smtps", "mx", "after the restart"}
        assert host.stop() == 0


def test_an_ipv4_client_of_a_socket_for_both_is_known_by_its_ipv4_address(
    sockets: list[socket.socket], environ: dict[str, str], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with activated(sockets, data, tmp_path / "host.log", environ) as host:
        host.wait_for("Ctrl-C stops it")
        deliver(sockets[2].getsockname()[1], "over IPv4")
        assert host.stop() == 0
        assert "::ffff:" not in host.output
        assert "127.0.0.1" in host.output


def test_a_socket_that_was_not_handed_over_ends_the_start_with_a_sentence(
    sockets: list[socket.socket], environ: dict[str, str], tmp_path: Path
) -> None:
    environ["Smtp__Endpoints__Mx"] = "systemd:domain=INET6:name=nothing"
    with activated(sockets, tmp_path / "data", tmp_path / "host.log", environ) as host:
        assert host.wait() == 69
        assert "mx: cannot listen on 'systemd:domain=INET6:name=nothing'" in host.output


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None, reason="systemd-socket-activate is not installed"
)
def test_systemd_itself_hands_the_sockets_over(environ: dict[str, str], tmp_path: Path) -> None:
    ports = free_ports(len(NAMES))
    listen = [argument for port in ports for argument in ("-l", f"127.0.0.1:{port}")]
    # It passes on no variable that it was not told of
    wanted = {name: value.replace("INET6", "INET") for name, value in environ.items() if "__" in name}
    passed = [f"--setenv={name}={value}" for name, value in {**wanted, "PATH": os.environ["PATH"]}.items()]
    host = [TWISTD, "-n", "relaymail", "--demo", "--data", str(tmp_path / "data")]
    command = ["systemd-socket-activate", *listen, f"--fdname={':'.join(NAMES)}", *passed, *host]
    with running(command, tmp_path / "host.log", environ) as program:
        program.wait_for(f"Listening on 127.0.0.1:{ports[-1]}")
        # The first client starts the host
        deliver(ports[2], "through systemd")
        program.wait_for("Ctrl-C stops it")
        assert subjects(tmp_path / "data", environ) == {"through systemd"}
        assert program.stop() == 0
