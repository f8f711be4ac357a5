"""Check of the running host: what its own health checks say."""

from __future__ import annotations

import json
import urllib.request
from typing import Any
from urllib.error import HTTPError

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy

PATIENCE = 8.0
"""Seconds: the report takes 6 at most."""
LONGEST = 256 * 1024


async def look(context: Context) -> Finding:
    """The full report of the health port."""
    seen = next((one for one in await context.listeners() if one.listener.name == "health"), None)
    if seen is None or not seen.ours:
        raise Skipped("the host does not run, or its health port has no number of its own")
    host = f"[{seen.listener.target}]" if ":" in seen.listener.target else seen.listener.target
    report = await context.aside(_report, f"http://{host}:{seen.listener.port}/healthz")
    checks = [check for check in report.get("checks", ()) if isinstance(check, dict)]
    bad = [check for check in checks if check.get("status") != "Healthy"]
    lines = [f"{check.get('name')}: {check.get('status')}: {check.get('description')}" for check in bad]
    status = str(report.get("status"))
    if status == "Healthy":
        return passed(f"The host says that it is healthy ({len(checks)} checks)", status=status)
    severity = Severity.ERROR if status == "Unhealthy" else Severity.WARN
    return failed(f"The host says that it is {status}", *lines, severity=severity, status=status)


def _report(url: str) -> dict[str, Any]:
    # No proxy of the environment: this is our own machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PATIENCE) as answer:
            body = answer.read(LONGEST)
    except HTTPError as error:
        with error:
            body = error.read(LONGEST)
    try:
        report = json.loads(body)
    except ValueError:
        report = None
    return report if isinstance(report, dict) else {"status": "unreadable"}


CHECK = Check(
    "check.host.health",
    "Running host is healthy",
    Severity.ERROR,
    ("health",),
    Page(
        what="Reads `/healthz` of the running host. Degraded is a warning, Unhealthy an error.",
        why="The host looks at itself from inside: what it uses now, not what would be used by a new one.",
        causes=(
            "What the check that is named looks at: see the doctor's own checks of the same",
            "DNS or the database was changed behind a running host",
        ),
        fix=Remedy(
            "docker compose logs --tail 100 relaymail\ndocker compose restart relaymail",
            "journalctl -u relaymail -n 100\nsystemctl restart relaymail",
            "kubectl logs deployment/relaymail --tail 100\nkubectl rollout restart deployment/relaymail",
        ),
        verify="curl -s http://localhost:8081/healthz",
        related=("check.ports.listeners", "check.database.reachable", "check.dns.resolver"),
    ),
    look,
    limit=20.0,
)
