"""What an operator reads when the host cannot start: the setting, what is wrong with it, and no traceback."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.host import BIN, Host

DATABASE = {"ConnectionStrings__DefaultConnection": "Host=127.0.0.1;Port=1;Database=relate;Password=hush"}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program has."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def refused(folder: Path, environ: dict[str, str]) -> tuple[int, str]:
    """The exit code of a host with these settings, and what it printed."""
    host = Host(folder, {"Smtp__BindAddresses__0": "127.0.0.1", **DATABASE, **environ}, options=())
    done = subprocess.run(
        [BIN / "twistd", "-n", "relaymail", *host.options],
        cwd=folder,
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "hush" not in done.stdout + done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "key"),
    [
        ("Smtp__Port", "{port}", "Smtp:Port, Smtp:BindAddresses"),
        ("Smtp__Mx__Port", "{port}", "Smtp:Mx:Port, Smtp:BindAddresses"),
        ("Smtp__Endpoints__Mx", "tcp:{port}:interface=127.0.0.1", "Smtp:Endpoints:Mx"),
        ("HealthCheck__Url", "http://127.0.0.1:{port}", "HealthCheck:Url"),
    ],
)
def test_a_port_that_another_program_has(
    tmp_path: Path, taken: int, setting: str, value: str, key: str
) -> None:
    mx = {"Smtp__Mx__Enabled": "true", "Smtp__Mx__HostedDomains__0": "example.test"}
    code, said = refused(tmp_path, {**mx, setting: value.format(port=taken)})
    assert code == 69
    assert f"{key}: " in said
    assert "another program has the port" in said or "Address already in use" in said


def test_an_address_that_this_machine_does_not_have(tmp_path: Path) -> None:
    code, said = refused(tmp_path, {"Smtp__BindAddresses__0": "192.0.2.1"})
    assert code == 69
    assert "Smtp:BindAddresses" in said
    assert "this machine has no such address" in said


def test_a_key_file_that_is_not_there(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.write_text("")
    environ = {
        "Smtp__CertificatePath": str(certificate),
        "Smtp__CertificateKeyPath": str(tmp_path / "key.pem"),
    }
    code, said = refused(tmp_path, environ)
    assert code == 78
    assert said.startswith("relaymail: Smtp:CertificatePath, Smtp:CertificateKeyPath: ")


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    code, said = refused(tmp_path, {})
    assert code == 78
    assert "Data:Directory: cannot use " in said
    assert "a file is in its place" in said
