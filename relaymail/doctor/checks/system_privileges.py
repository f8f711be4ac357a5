"""Check of privileges: may the host have ports under 1024."""

from __future__ import annotations

import os
import re
from pathlib import Path

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy

CAP_NET_BIND_SERVICE = 10
"""Number of the capability (capabilities(7))."""
USUAL_START = 1024

_START = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_STATUS = Path("/proc/self/status")


async def look(context: Context) -> Finding:
    """The ports nobody of ours has yet, against what this user may have."""
    listeners = await context.listeners()
    start = _unprivileged_start()
    low = [seen for seen in listeners if seen.listener.port < start]
    if not low:
        raise Skipped(f"no port below {start} is wanted, and others are for every user")
    if all(seen.ours for seen in low):
        return passed("The host has its low ports")
    if _capable():
        return passed("This user may have ports below 1024")
    ports = ", ".join(str(seen.listener) for seen in low if not seen.ours)
    return failed(
        f"This user (uid {os.geteuid()}) may not have {ports}",
        f"ports below {start} need root or CAP_NET_BIND_SERVICE",
        unprivilegedPortStart=start,
    )


def _unprivileged_start() -> int:
    """The first port that every user may have (ip(7))."""
    try:
        return int(_START.read_text())
    except (OSError, ValueError):
        return USUAL_START


def _capable() -> bool:
    """Whether this process has the capability in effect; root usually has."""
    try:
        match = re.search(r"^CapEff:\s*([0-9a-f]+)", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        return os.geteuid() == 0
    return bool(int(match[1], 16) >> CAP_NET_BIND_SERVICE & 1)


CHECK = Check(
    "check.system.privileges",
    "Host may have its low ports",
    Severity.ERROR,
    ("system", "ports"),
    Page(
        what="For ports below 1024 (or `net.ipv4.ip_unprivileged_port_start`): does the host have them, or "
        "may this "
        "user? Run the doctor as the user the host runs as, in the same container or unit.",
        why="The standard ports 25, 465 and 587 are among them; a host that may not have them exits with 69.",
        causes=(
            "The host runs as an ordinary user without the capability",
            "`no-new-privileges` takes away the capability of a file (`setcap` on python)",
            "Kubernetes or Podman without the sysctl",
        ),
        fix=Remedy(
            "cat > relaymail-ports.yaml <<'END'\nservices:\n  relaymail:\n    sysctls:\n"
            "      net.ipv4.ip_unprivileged_port_start: 0\nEND\n"
            "docker compose -f compose.yaml -f relaymail-ports.yaml up -d relaymail",
            "install -d /etc/systemd/system/relaymail.service.d\n"
            "printf '[Service]\\nAmbientCapabilities=CAP_NET_BIND_SERVICE\\n' "
            "> /etc/systemd/system/relaymail.service.d/ports.conf\n"
            "systemctl daemon-reload && systemctl restart relaymail",
            'kubectl patch deployment relaymail -p \'{"spec":{"template":{"spec":{"securityContext":'
            '{"sysctls":[{"name":"net.ipv4.ip_unprivileged_port_start","value":"0"}]}}}}}\'',
        ),
        verify="ss -ltn '( sport = :25 or sport = :465 or sport = :587 )'",
        related=("check.ports.listeners",),
    ),
    look,
    limit=12.0,
)
