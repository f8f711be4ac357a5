"""Check of the ports: free, ours, or another service's."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.listeners import Seen
from relaymail.doctor.page import Page, Remedy, setting


async def look(context: Context) -> Finding:
    """Each port: who is there."""
    listeners = await context.listeners()
    if not listeners:
        raise Skipped("no listener has a port of its own: sockets come from systemd, or all are off")
    running = any(seen.ours for seen in listeners)
    problems = [text for seen in listeners if (text := _problem(seen, running=running))]
    states = {seen.listener.name: seen.state for seen in listeners}
    if problems:
        return failed(_summary(listeners, running), *problems, ports=states)
    unready = [seen for seen in listeners if seen.ours and seen.said.startswith("421")]
    if unready:
        return failed(
            "The host listens, and sends clients away",
            *[f"{seen.listener} greets with: {seen.said}" for seen in unready],
            ports=states,
        )
    name = context.settings.smtp.server_name
    strange = [seen for seen in listeners if seen.ours and seen.greets_as not in ("", name)]
    if strange:
        return failed(
            f"A relaymail answers, but not as {name}",
            *[f"{seen.listener} greets as {seen.greets_as}" for seen in strange],
            "another installation, or a host that was not restarted since Smtp:ServerName was changed",
            severity=Severity.WARN,
            ports=states,
        )
    if running:
        return passed("The host listens on all of its ports", *_lines(listeners), ports=states)
    if "denied" in states.values():
        told = "The host does not run; nobody else has its ports, but see check.system.privileges"
        return passed(told, *_lines(listeners), ports=states)
    return passed("The host does not run; its ports are free", *_lines(listeners), ports=states)


def _problem(seen: Seen, *, running: bool) -> str:
    listener = seen.listener
    who = str(seen.program) if seen.program else "another program"
    match seen.state:
        case "another":
            return f"{listener} ({listener.key}): {who} has it, and answers: {seen.said or '(nothing)'}"
        case "silent":
            return f"{listener} ({listener.key}): {who} has it and says nothing: {seen.said}"
        case "closed":
            return f"{listener} ({listener.key}): cannot be had: {seen.said}"
        case "free" | "denied" if running:
            return f"{listener} ({listener.key}): the host runs, but does not listen here"
        case _:
            # "denied" is told of by check.system.privileges
            return ""


def _summary(listeners: list[Seen], running: bool) -> str:
    foreign = [str(seen.listener) for seen in listeners if seen.state in ("another", "silent")]
    if foreign:
        return f"Another service has {', '.join(foreign)}"
    return "The host does not listen everywhere" if running else "Not all ports can be had"


def _lines(listeners: list[Seen]) -> list[str]:
    return [f"{seen.listener} is {seen.state}" for seen in listeners]


CHECK = Check(
    "check.ports.listeners",
    "Ports are free, or the host's own",
    Severity.ERROR,
    ("ports", "connectivity"),
    Page(
        what="Connects to each port of the settings (submission, SMTPS, MX, health) and reads who answers: "
        "our host, "
        "which greets as relaymail (with another name than `Smtp:ServerName`, that is a warning), or another "
        "service. Where nobody answers, it looks whether the port can "
        "be had. A running host that misses one of its ports fails, and so does one that greets with `421`.",
        why="A host whose port is taken exits with 69. Clients that reach another service get its refusals.",
        causes=(
            "Postfix, Exim or the host that this one replaces still runs",
            "Two hosts with the same ports on one machine",
            "The settings were changed and the host not restarted",
            "The database is away, so that the host greets with `421 4.3.2`",
        ),
        fix=Remedy(
            "docker ps --filter publish=25 --filter publish=465 --filter publish=587\n"
            "docker compose ps && docker compose up -d relaymail",
            "ss -ltnp '( sport = :25 or sport = :465 or sport = :587 or sport = :8081 )'\n"
            "systemctl disable --now postfix exim4\nsystemctl restart relaymail",
            "kubectl get pods -o wide && kubectl get svc -A | grep -E ':?(25|465|587)[:/]'\n"
            "kubectl rollout restart deployment/relaymail",
        )
        + setting("Smtp__Port=2587", comment="or take another port"),
        verify="curl -s http://localhost:8081/healthz && printf 'QUIT\\r\\n' | nc -w 5 localhost 587",
        related=("check.system.privileges", "check.host.health", "check.database.reachable"),
    ),
    look,
    limit=12.0,
)
