"""Check of the limit of open files: does it allow the connections the settings do."""

from __future__ import annotations

import re
import resource
from pathlib import Path
from typing import Any

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy

BESIDE_CONNECTIONS = 200
"""Files for the database, DNS, the spool, the log and outgoing connections."""


async def look(context: Context) -> Finding:
    """The hard limit, which the host raises its own to: of the running host, where it can be seen."""
    outbound = context.settings.outbound_mail.max_concurrency if context.outbound else 0
    wanted = context.settings.smtp.limits.connections + outbound + BESIDE_CONNECTIONS
    program = next((seen.program for seen in await context.listeners() if seen.ours and seen.program), None)
    allowed = await context.aside(_limit_of, program.pid) if program is not None else None
    whose = "the running host" if allowed is not None else "this process"
    if allowed is None:
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if allowed == resource.RLIM_INFINITY:
        return passed(f"{whose} may open any number of files")
    data: dict[str, Any] = {"allowed": allowed, "wanted": wanted}
    if allowed < wanted:
        return failed(
            f"{whose} may open {allowed} files, Smtp:Limits:Connections and the rest need {wanted}", **data
        )
    return passed(f"{whose} may open {allowed} files, and needs {wanted} at most", **data)


def _limit_of(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return None
    match = re.search(r"^Max open files\s+\S+\s+(\S+)", text, re.MULTILINE)
    if match is None:
        return None
    return int(match[1]) if match[1].isdigit() else resource.RLIM_INFINITY


CHECK = Check(
    "check.system.files",
    "Enough files may be open",
    Severity.WARN,
    ("system",),
    Page(
        what="Compares the hard limit of open files with what `Smtp:Limits:Connections`, outgoing "
        "connections and the "
        "host's own files need. It looks at the running host where it may, else at itself.",
        why="Each connection is an open file. At the limit no connection is accepted and no file of the "
        "spool can be "
        "opened, until others end.",
        causes=(
            "A container runtime or a login shell with a low `nofile` limit",
            "A unit without `LimitNOFILE`",
            "`Smtp:Limits:Connections` was raised without the limit",
        ),
        fix=Remedy(
            "cat > relaymail-files.yaml <<'END'\nservices:\n  relaymail:\n    ulimits:\n      nofile: "
            "65536\nEND\n"
            "docker compose -f compose.yaml -f relaymail-files.yaml up -d relaymail",
            "install -d /etc/systemd/system/relaymail.service.d\n"
            "printf '[Service]\\nLimitNOFILE=65536\\n' > /etc/systemd/system/relaymail.service.d/files.conf\n"
            "systemctl daemon-reload && systemctl restart relaymail",
            "# the limit is that of the container runtime on the node\n"
            "systemctl set-property --runtime containerd LimitNOFILE=1048576 && systemctl restart "
            "containerd\n"
            "# or allow fewer connections\n"
            "kubectl set env deployment/relaymail Smtp__Limits__Connections=500",
        ),
        verify="grep 'open files' /proc/$(pgrep -of 'relaymail')/limits",
        related=("check.ports.listeners",),
    ),
    look,
    limit=12.0,
)
