"""Check of the embedded PostgreSQL's folder."""

from __future__ import annotations

import os
from pathlib import Path

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.store.embedded import EmbeddedPostgresError
from relaymail.store.embedded.binaries import find_binaries
from relaymail.store.embedded.folder import Folder, end_of_log, read_holder
from relaymail.store.embedded.identity import choose_identity
from relaymail.store.embedded.postmaster import find_running

LOG_SHOWN = 8192
"""Bytes at the end of the log that are searched for complaints."""


async def look(context: Context) -> Finding:
    """What is in the folder, and whether the programs fit to it; nothing is started."""
    if not context.settings.data.embedded_postgres:
        raise Skipped("the database is not an embedded one")
    return await context.aside(_look, context.settings.data.directory)


def _look(directory: Path) -> Finding:
    try:
        binaries = find_binaries()
    except EmbeddedPostgresError as error:
        return failed("The programs of PostgreSQL are not installed", str(error))
    folder = Folder(directory.resolve())
    try:
        identity = choose_identity(folder.data)
    except EmbeddedPostgresError as error:
        return failed("There is no account that PostgreSQL can run as", str(error))
    version_file = folder.data / "PG_VERSION"
    try:
        version = version_file.read_text().strip()
        owner = folder.data.stat().st_uid
    except FileNotFoundError:
        if folder.data.is_dir() and any(folder.data.iterdir()):
            return failed(f"{folder.data} is not empty and no PostgreSQL data folder")
        return passed("The embedded database does not exist yet: the host's first start makes it")
    except OSError as error:
        return failed(f"{version_file} cannot be read: {error.strerror}", f"as uid {os.geteuid()}")
    ours = _version(binaries)
    if ours and version != ours:
        return failed(
            f"The data are of PostgreSQL {version}, the installed programs are {ours}",
            f"{folder.data}",
            dataVersion=version,
            programVersion=ours,
        )
    if owner != identity.uid:
        return failed(f"{folder.data} belongs to uid {owner}, PostgreSQL would run as uid {identity.uid}")
    return _running(folder, version)


def _running(folder: Folder, version: str) -> Finding:
    running = find_running(folder.data)
    pid, holder = read_holder(folder)
    if running is None:
        said = end_of_log(folder, max(0, _size(folder.log) - LOG_SHOWN))
        bad = [mark for mark in ("FATAL", "PANIC") if mark in said]
        details = (f"its log ends with: {said}",) if bad else ()
        return passed(f"PostgreSQL {version} is in place and does not run at present", *details)
    if running.status != "ready":
        return failed(
            f"PostgreSQL {version} (process {running.pid}) is {running.status}", severity=Severity.WARN
        )
    used = f", used by {holder} {pid}" if pid != "?" else ""
    return passed(f"PostgreSQL {version} runs in place (process {running.pid}{used})")


def _version(binaries: Path) -> str:
    """The major version of the programs, as their headers or their folder of shared files tell it."""
    for name in ("share/postgresql/postgres.bki", "share/postgres.bki"):
        try:
            with (binaries.parent / name).open(encoding="utf-8", errors="replace") as file:
                return file.readline().split()[-1]
        except (OSError, IndexError):
            continue
    return ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


CHECK = Check(
    "check.database.embedded",
    "Embedded database's folder is sound",
    Severity.ERROR,
    ("database", "disk"),
    Page(
        what="With `Data:EmbeddedPostgres` or `--demo`: are PostgreSQL's programs installed, are the data of "
        "the same "
        "major version, do they belong to the account it runs as, does it run.",
        why="All mail is in this folder. A PostgreSQL of another major version does not open it.",
        causes=(
            "The extra `embedded` was not installed",
            "An upgrade brought programs of a newer major version of PostgreSQL",
            "The folder was copied or restored as another user",
            "Something else was put into `Data:Directory`",
            "The host runs as root, and no account `postgres` or `nobody` exists",
        ),
        fix=Remedy(
            "# other owner; the image's user is 10025\n"
            "docker compose run --rm --user root --entrypoint chown relaymail -R 10025:10025 "
            "/var/lib/relaymail\n"
            "docker compose up -d relaymail",
            "# other owner\nchown -R relaymail:relaymail /var/lib/relaymail\n"
            "# programs missing\n/opt/relaymail/bin/pip install 'relaymail[embedded]'\n"
            "# other major version: dump with the old programs, restore with the new "
            "(docs/how-to/backup.md)\n"
            "systemctl restart relaymail",
            "# other owner: let the volume be given to the group of the pod\n"
            "kubectl patch deployment relaymail -p "
            '\'{"spec":{"template":{"spec":{"securityContext":{"fsGroup":10025}}}}}\'',
        ),
        verify="relaymail db status",
        related=("check.system.data-folder", "check.system.disk", "check.database.reachable"),
    ),
    look,
)
