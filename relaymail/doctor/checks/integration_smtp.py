"""Check of a client's SMTP server: can it be connected to from here.

It reads what a program that sends mail through this host (or another one) is given: host and port, in the
sections such programs use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.connect import connect
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy

SECTIONS = ("Smtp", "Email:Smtp", "Notify:Email")
"""Where ``Host`` is looked for, in this order; ``Port`` is that of the same section."""
DEFAULT_PORT = 587
LIMIT = 5.0
"""Seconds for the connection."""

_SUMMARIES = {
    "timeout": "The connection to the SMTP server timed out",
    "refused": "The SMTP server refused the connection",
    "dns": "The SMTP server's host name does not resolve",
    "socket": "The SMTP server cannot be connected to: socket error",
}


class Server(NamedTuple):
    """The server that is configured."""

    host: str
    port: str
    section: str


def configured(context: Context) -> Server | None:
    """The first of :data:`SECTIONS` that has a host."""
    for section in SECTIONS:
        host = context.examined.given(f"{section}:Host")
        if host is not None and host.text.strip():
            port = context.examined.given(f"{section}:Port")
            text = port.text.strip() if port is not None else ""
            return Server(host.text.strip(), text or str(DEFAULT_PORT), section)
    return None


async def look(context: Context) -> Finding:
    """Open a plain TCP connection."""
    server = configured(context)
    if server is None:
        raise Skipped(
            "no SMTP server is configured: Smtp:Host, Email:Smtp:Host and Notify:Email:Host are not set"
        )
    source = f"{server.section}:Host"
    if not (server.port.isascii() and server.port.isdigit() and 0 < int(server.port[:6]) < 65536):
        return failed(
            f"{server.section}:Port is not a port",
            f"{server.section}:Port is {server.port}; allowed: 1 to 65535",
            host=server.host,
        )
    port = int(server.port)
    where = f"{server.host}:{port} (from {source})"
    tried = await connect(context.reactor, server.host, port, limit=LIMIT)
    data: dict[str, Any] = {"host": server.host, "port": port, "source": source}
    if tried.how == "connected":
        return passed(f"The SMTP server at {server.host}:{port} accepts connections", where, **data)
    return failed(_SUMMARIES[tried.how], where, tried.why, failure=tried.how, **data)


CHECK = Check(
    "check.integration.smtp",
    "SMTP server can be connected to",
    Severity.WARN,
    ("connectivity", "email", "smtp"),
    Page(
        what="Reads the host from `Smtp:Host`, `Email:Smtp:Host` or `Notify:Email:Host`, in that order, and "
        "the port from "
        f"the same section's `Port` (default {DEFAULT_PORT}), and opens a plain TCP connection with a limit "
        "of "
        f"{LIMIT:g} seconds. Fails on a timeout, a socket error, a host name that does not resolve, and a "
        "connection that is refused. Left out where no host is configured.",
        why="Programs that send notifications by mail, such as alerts and invitations, cannot send any while "
        "their SMTP "
        "server is not to be reached; most of them drop the message after a few tries.",
        causes=(
            "The SMTP server is not running, or still starting",
            "Host or port is wrong: 587 is submission, 465 TLS at once, 25 other hosts",
            "A firewall, security group or network policy blocks the port (a timeout rather than a refusal)",
            "The host name is known in another network only (DNS failure)",
            "The server listens on its loopback address only",
        ),
        fix=Remedy(
            "docker compose ps relaymail\ndocker compose up -d relaymail\n"
            "docker compose exec relaymail curl -sf http://localhost:8081/healthz\n"
            "# name the service as the client's containers see it\n"
            "printf '%s\\n' 'Smtp__Host=relaymail' 'Smtp__Port=587' >> client.env\ndocker compose up -d",
            "systemctl status relaymail\nsystemctl start relaymail\nss -ltn 'sport = :587'\n"
            "# open the port where a firewall closes it\nfirewall-cmd --add-port=587/tcp --permanent && "
            "firewall-cmd --reload   # or: ufw allow 587/tcp\n"
            "# name the server in the client's environment\n"
            "printf '%s\\n' 'Smtp__Host=mail.example.com' 'Smtp__Port=587' >> /etc/client/environment",
            "kubectl get pods,svc,endpoints -l app.kubernetes.io/name=relaymail\n"
            "kubectl get networkpolicy -A\n"
            "kubectl run smtp-test --rm -it --image=busybox --restart=Never -- nc -vz -w 5 relaymail 587\n"
            "# with Helm, in the chart of the client\n"
            "helm upgrade client ./client --reuse-values --set smtp.host=relaymail --set smtp.port=587",
        ),
        verify="nc -vz -w 5 mail.example.com 587",
        related=("check.ports.listeners", "check.host.health", "check.dns.resolver", "check.tls.certificate"),
    ),
    look,
    limit=8.0,
)
