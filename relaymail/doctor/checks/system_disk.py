"""Check of the disk: is there room for mail."""

from __future__ import annotations

from typing import Any

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.health.checks.system import DISK_DEGRADED_BELOW, DISK_UNHEALTHY_BELOW, GB, MB, statvfs

FEW_FILES = 1000
"""Inodes, below which it is an error."""


async def look(context: Context) -> Finding:
    """The file system of the data folder."""
    found = await context.aside(statvfs, context.settings.data.directory)
    available, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    room = f"{available / GB:.2f} GB of {total / GB:.2f} GB are free"
    data: dict[str, Any] = {"availableGB": round(available / GB, 2), "totalGB": round(total / GB, 2)}
    if available < DISK_DEGRADED_BELOW:
        severe = available < DISK_UNHEALTHY_BELOW
        return failed(room, severity=Severity.ERROR if severe else Severity.WARN, **data)
    # Some file systems make inodes as they are needed, and say that there are none
    if found.f_files and found.f_favail < FEW_FILES:
        return failed(f"{room}, but there are inodes for {found.f_favail} files only", **data)
    return passed(room, **data)


CHECK = Check(
    "check.system.disk",
    "Disk has room",
    Severity.ERROR,
    ("system", "disk"),
    Page(
        what=f"Looks at the file system of `Data:Directory`: less than {DISK_DEGRADED_BELOW // GB} GB is a "
        "warning, less "
        f"than {DISK_UNHEALTHY_BELOW // MB} MB or {FEW_FILES} inodes an error. The database's disk, where it "
        "is "
        "elsewhere, is not seen.",
        why="Where there is no room for a message, it is refused with `452 4.3.1` and waits at its sender. "
        "An embedded "
        "PostgreSQL stops when its disk is full.",
        causes=(
            "Raw messages are kept for ever (`Retention:Messages` is unset)",
            "Logs or backups on the same file system",
            "A replication slot of PostgreSQL that nobody reads holds its WAL",
        ),
        fix=Remedy(
            "docker system df\ndocker system prune\n"
            "printf '%s\\n' 'Retention__Messages=365.00:00:00' >> relaymail.env && docker compose up -d "
            "relaymail",
            "df -h /var/lib/relaymail\ndu -xhd1 /var/lib/relaymail\njournalctl --vacuum-size=500M\n"
            "printf '%s\\n' 'Retention__Messages=365.00:00:00' >> /etc/relaymail/environment\n"
            "systemctl restart relaymail",
            "kubectl exec deployment/relaymail -- df -h /var/lib/relaymail\n"
            "kubectl describe nodes | grep -A 8 Conditions:\n"
            "kubectl set env deployment/relaymail Retention__Messages=365.00:00:00",
        ),
        verify="df -h /var/lib/relaymail && df -i /var/lib/relaymail",
        related=("check.system.data-folder", "check.database.embedded"),
    ),
    look,
)
