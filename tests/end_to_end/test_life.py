"""The life of a host: start, stop, start again, and the ways in which it does not start."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest

from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host, greets, processes
from tests.end_to_end.mail import message, new_message_id
from tests.end_to_end.wire import LIMIT, Wire
from tests.support.polling import until

EX_UNAVAILABLE = 69
EX_CONFIG = 78
LONG = "3600"
"""Seconds that nobody here waits for: a stop that waited for this to pass would not end."""


def sockets(folder: Path) -> list[Path]:
    """Unix sockets, locks and pid files that a running server keeps."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_socket() or path.name in {"postmaster.pid", "twistd.pid"} or ".s.PGSQL" in path.name
    ]


def group(pid: int) -> list[int]:
    """All processes of a process group or session that live on."""
    found = []
    for other in processes():
        try:
            fields = Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if str(pid) in fields[2:4] and fields[0] != "Z":
            found.append(other)
    return found


def sentence(host: Host) -> str:
    """Why it did not start: what it says beside the log."""
    (found,) = re.findall("^relaymail: .*", host.log, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("how", ["interrupt", "terminate"])
def test_a_demo_stops_within_seconds_leaves_nothing_and_goes_on_with_the_same_data(
    new_host: MakeHost, how: str
) -> None:
    host = new_host({"Smtp__Timeouts__Drain": LONG})
    host.start()
    first = host.deliver(message("Subject: First"), "demo@example.test")
    key = (host.data / "demo-key").read_text()
    pid = host.pid
    idle = Wire(host.ports.mx)
    getattr(host, how)()
    assert idle.reply().start == "421 4.3.2"
    assert host.ended() == 0
    assert group(pid) == []
    assert host.postgres_processes() == []
    assert sockets(host.data) == []
    assert "Traceback" not in host.log
    host.start()
    assert (host.data / "demo-key").read_text() == key
    second = host.deliver(message("Subject: Second"), "demo@example.test")
    listed = json.loads(host.cli("message", "list", "--json"))
    assert [(entry["id"], entry["subject"]) for entry in listed] == [(second, "Second"), (first, "First")]


def test_what_a_killed_host_left_behind_is_adopted(new_host: MakeHost) -> None:
    host = new_host()
    host.start()
    first = host.deliver(message(), "demo@example.test")
    before = set(host.postgres_processes())
    host.kill()
    assert host.postgres_processes() != []
    host.start()
    assert "Adopting PostgreSQL" in host.log
    assert before & set(host.postgres_processes())
    assert host.export(first)
    assert host.stop() == 0
    assert host.postgres_processes() == []
    assert sockets(host.data) == []


def test_stale_locks_and_sockets_of_killed_processes_are_dealt_with(new_host: MakeHost) -> None:
    host = new_host()
    host.start()
    first = host.deliver(message(), "demo@example.test")
    host.kill()
    host.kill_postgres()
    assert sockets(host.data) != []
    host.start()
    assert host.export(first)


def test_a_second_host_on_the_same_folder_refuses(host: Host, new_host: MakeHost) -> None:
    other = new_host(fresh=True)
    other.options = host.options
    other.launch()
    assert other.ended() == EX_UNAVAILABLE
    assert str(host.data) in sentence(other)
    assert "Traceback" not in other.log
    assert greets(host.ports.mx) == 220


LISTENERS = [
    ("submission", "Smtp__Port"),
    ("submissions", "Smtp__SecurePort"),
    ("mx", "Smtp__Mx__Port"),
    ("health", "HealthCheck__Url"),
]


@pytest.mark.parametrize(("listener", "key"), LISTENERS)
def test_a_taken_port_is_named(new_host: MakeHost, listener: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = f"http://127.0.0.1:{port}" if listener == "health" else str(port)
        host = new_host({key: value, "Data__EmbeddedPostgres": "true"}, fresh=True)
        host.launch()
        assert host.ended() == EX_UNAVAILABLE
    assert str(port) in sentence(host)
    assert "127.0.0.1" in sentence(host)
    assert ("HealthCheck:Url" if listener == "health" else listener) in sentence(host)
    assert "Traceback" not in host.log
    assert host.postgres_processes() == []


REFUSALS = [
    ({"Smtp__Port": "smtp"}, ["Smtp:Port", '"smtp"']),
    ({"Smtp__Mx__Enabled": "true", "Smtp__Mx__HostedDomains__0": ""}, ["Smtp:Mx:HostedDomains"]),
    ({"Smtp__Mx__Enabled": "true"}, ["Smtp:Mx:HostedDomains"]),
    ({"Smtp__Prot": "587"}, ["Smtp:Prot", "Smtp:Port"]),
    ({"Smtp__CertificatePath": "/nowhere/certificate.pem"}, ["Smtp:CertificatePath", "/nowhere"]),
    ({"Smtp__CertificatePath": __file__}, ["Smtp:CertificatePath", __file__]),
    ({"Debug__CrashPoint": "nowhere"}, ["Debug:CrashPoint", "before-insert"]),
]


@pytest.mark.parametrize(("settings", "said"), REFUSALS)
def test_a_wrong_setting_is_named_before_a_port_opens(
    new_host: MakeHost, settings: dict[str, str], said: list[str]
) -> None:
    host = new_host(
        {"ConnectionStrings__DefaultConnection": "Host=127.0.0.1;Port=9;Database=x", **settings}, options=()
    )
    host.launch()
    assert host.ended() == EX_CONFIG
    assert all(text in host.log for text in said), host.log
    assert "Traceback" not in host.log
    assert not host.data.exists()


def test_without_a_database_the_three_ways_on_are_named(new_host: MakeHost) -> None:
    for settings in ({}, {"ConnectionStrings__DefaultConnection": " "}):
        host = new_host(settings, options=())
        host.launch()
        assert host.ended() == EX_CONFIG
        for way in ("ConnectionStrings:DefaultConnection", "Data:EmbeddedPostgres", "--demo"):
            assert way in host.log
        assert not host.data.exists()


def test_without_a_certificate_passwords_are_not_taken(
    new_host: MakeHost, database_parameters: dict[str, str]
) -> None:
    host = new_host(
        {
            "Smtp__BindAddresses__0": "127.0.0.1",
            "Smtp__Mx__Enabled": "true",
            "Smtp__Mx__HostedDomains__0": "example.test",
        },
        options=(),
        database=database_parameters,
    )
    host.start()
    assert "SMTPS stays closed" in host.log
    assert greets(host.ports.submissions) is None
    user = host.user()
    with Wire(host.ports.submission) as wire:
        lines = wire.hello().lines
        assert not any(line.startswith(("AUTH", "STARTTLS")) for line in lines)
        assert wire.login(user.address, user.key).code in {502, 538}
        assert wire.command(f"MAIL FROM:<{user.address}>").start == "530 5.7.0"
    assert host.deliver(message(), user.address)


def test_sigterm_during_data_loses_nothing_and_bounces_nothing(new_host: MakeHost) -> None:
    host = new_host()
    host.start()
    user = host.user()
    finished_id, broken_id = new_message_id(), new_message_id()
    with host.mx() as finished, host.mx() as waiting, host.submission(user) as idle:
        finished.envelope("friend@example.org", user.address)
        finished.command("DATA")
        finished.send(message(message_id=finished_id)[:50])
        waiting.envelope("friend@example.org", user.address)
        host.terminate()
        assert idle.reply().start == "421 4.3.2"
        assert waiting.reply().start == "421 4.3.2"
        until(lambda: greets(host.ports.mx) is None)
        finished.send(message(message_id=finished_id)[50:] + b".\r\nNOOP\r\n")
        stored = finished.reply()
        assert stored.code == 250
        assert finished.reply().start == "421 4.3.2"
        assert finished.rest() == b""
    assert host.ended() == 0
    host.start()
    assert host.export(stored.id) == message(message_id=finished_id)
    assert host.stored(finished_id) == 1
    # Cut in the middle of DATA by a second Ctrl-C: no reply at all, so that the peer tries again
    with host.mx() as wire:
        wire.envelope("friend@example.org", user.address)
        wire.command("DATA")
        wire.send(message(message_id=broken_id)[:50])
        host.interrupt()
        host.until_logged("Draining")
        host.interrupt()
        assert wire.rest() == b""
    assert host.ended() == 0
    host.start()
    assert host.stored(broken_id) == 0


def test_a_client_that_does_not_read_cannot_hold_up_the_stop(new_host: MakeHost) -> None:
    host = new_host({"Smtp__Timeouts__Drain": "2"})
    host.start()
    user = host.user()
    with host.submission(user) as silent, Wire(host.ports.submissions, greet=False), host.mx() as slow:
        slow.envelope("friend@example.org", user.address)
        slow.command("DATA")
        flood = threading.Thread(target=_flood, args=(silent,), daemon=True)
        flood.start()
        host.terminate()
        assert host.ended() == 0
        flood.join()


def _flood(wire: Wire) -> None:
    """Ask for far more replies than a socket holds, and read none."""
    try:
        wire.send(b"NOOP\r\n" * 2_000_000)
    except OSError:
        pass


def test_an_idle_tls_client_does_not_hold_up_the_stop(new_host: MakeHost) -> None:
    host = new_host({"Smtp__Timeouts__Drain": LONG})
    host.start()
    with host.submission(host.user()):
        host.interrupt()
        assert host.ended() == 0


def test_sigterm_during_the_start_stops_all_the_same(new_host: MakeHost) -> None:
    host = new_host(fresh=True)
    host.launch()
    host.until_logged("Creating the database")
    host.terminate()
    assert host.ended() == 0
    assert host.postgres_processes() == []
    host.start()
    assert host.deliver(message(), "demo@example.test")


def test_the_commands_a_demo_prints_work_when_pasted(new_host: MakeHost, tmp_path: Path) -> None:
    host = new_host(fresh=True)
    # A folder whose name the shell, Python and a URL would each read in their own way
    odd = host.data.parent / 'it\'s a "de mo" $HOME %20'
    host.options = ["--demo", "--data", str(odd)]
    host.data = odd
    host.start()
    commands = re.findall(r"^  (\S.*)$", host.log, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
    assert b"Over submission" in done.stdout
    assert b"Over MX" in done.stdout
    assert host.stop() == 0


def test_a_demo_answers_health_while_it_runs(host: Host) -> None:
    with urllib.request.urlopen(
        f"http://localhost:{host.ports.health}/healthz/live", timeout=LIMIT
    ) as answer:
        assert answer.status == 200
    found = host.health()
    assert [found[name]["status"] for name in ("database", "smtp", "certificate")] == ["Healthy"] * 3


def test_a_kill_while_the_database_is_made_does_not_spoil_the_next_start(new_host: MakeHost) -> None:
    host = new_host(fresh=True)
    host.launch()
    host.until_logged("Creating the database")
    host.kill()
    host.start()
    assert host.deliver(message(), "demo@example.test")
    assert host.stop() == 0
    assert host.postgres_processes() == []
