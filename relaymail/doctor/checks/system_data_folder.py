"""Check of the data folder: can the host write there."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy

OTHERS = stat.S_IRWXO
"""Rights of everyone: mail passes through here."""


async def look(context: Context) -> Finding:
    """Write a small file where large messages are kept for a moment."""
    return await context.aside(_look, context.settings.data.directory)


def _look(directory: Path) -> Finding:
    folder = directory.resolve()
    try:
        found = folder.stat()
    except FileNotFoundError:
        return _missing(folder)
    except OSError as error:
        return failed(f"The data folder {folder} cannot be looked at: {error.strerror}")
    if not stat.S_ISDIR(found.st_mode):
        return failed(f"{folder} is no folder")
    spool = folder / "spool"
    place = spool if spool.is_dir() else folder
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as trial:
            trial.write(b"\0" * 4096)
            trial.flush()
            os.fsync(trial.fileno())
    except OSError as error:
        return failed(
            f"{place} cannot be written: {error.strerror}",
            f"it belongs to uid {found.st_uid}, this is uid {os.geteuid()}",
        )
    details = [f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}"]
    if found.st_mode & OTHERS:
        return failed(
            f"{folder} is open to every user of this machine",
            *details,
            severity=Severity.WARN,
        )
    return passed(f"{folder} can be written", *details)


def _missing(folder: Path) -> Finding:
    parent = next(parent for parent in folder.parents if parent.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        return passed(f"{folder} does not exist yet: the host's first start makes it")
    return failed(
        f"The data folder {folder} does not exist, and may not be made",
        f"{parent} belongs to uid {parent.stat().st_uid}, this is uid {os.geteuid()}",
    )


CHECK = Check(
    "check.system.data-folder",
    "Data folder can be written",
    Severity.ERROR,
    ("system", "disk"),
    Page(
        what="Writes, syncs and removes a small file in `Data:Directory` (in its `spool`, where it exists). "
        "A folder "
        "that others may enter is a warning. Run the doctor as the user the host runs as.",
        why="Large messages wait here until they are stored: without it they are refused with `452 4.3.1`, "
        "and the host "
        "does not start. The embedded database is in it as well.",
        causes=(
            "The folder belongs to another user than the host runs as",
            "A volume that is mounted read-only",
            "A relative `Data:Directory`, and the host was started in another folder",
        ),
        fix=Remedy(
            "docker compose run --rm --user root --entrypoint chown relaymail -R 10025:10025 "
            "/var/lib/relaymail\n"
            "docker compose up -d relaymail",
            "install -d -o relaymail -g relaymail -m 700 /var/lib/relaymail\n"
            "chown -R relaymail:relaymail /var/lib/relaymail\nsystemctl restart relaymail",
            "kubectl patch deployment relaymail -p "
            '\'{"spec":{"template":{"spec":{"securityContext":{"fsGroup":10025}}}}}\'',
        ),
        verify="sudo -u relaymail touch /var/lib/relaymail/spool/.test && rm /var/lib/relaymail/spool/.test",
        related=("check.system.disk", "check.database.embedded"),
    ),
    look,
)
