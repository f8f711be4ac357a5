"""Check of the way out: do connections to other mail hosts get through."""

from __future__ import annotations

from relaymail.dns import DNSFailure, NoRecords, NoSuchDomain
from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.connect import connect
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy, setting

CONNECT_LIMIT = 8.0
GREETING_LIMIT = 6.0
"""Seconds."""


async def look(context: Context) -> Finding:
    """Connect to the target of the settings, the smarthost or a large receiver, and wait for a greeting."""
    mail = context.settings.outbound_mail
    if not mail.enabled:
        raise Skipped("OutboundMail:Enabled is false: no mail is sent to other hosts")
    if not context.outbound:
        raise Skipped(f"{context.name} is no full domain name, so no mail is sent to other hosts")
    host, port = await _target(context)
    tried = await connect(context.reactor, host, port, limit=CONNECT_LIMIT, greeting=GREETING_LIMIT)
    where = f"{host} port {port}"
    if tried.how != "connected":
        return failed(f"No connection to {where}", tried.why, how=tried.how, host=host, port=port)
    if port == 465:
        return passed(f"Connections to {where} get through")
    if not tried.greeting:
        return failed(
            f"{where} accepts the connection and does not greet",
            "something in between may be holding port 25 up",
            severity=Severity.WARN,
            host=host,
            port=port,
        )
    if not tried.greeting.startswith("220"):
        return failed(
            f"{where} does not want us", tried.greeting, severity=Severity.WARN, host=host, port=port
        )
    return passed(f"Connections to {where} get through", tried.greeting)


async def _target(context: Context) -> tuple[str, int]:
    mail = context.settings.outbound_mail
    target = context.settings.doctor.outbound_target
    if target is not None:
        return target.host, target.port
    if mail.relay_host is not None:
        return mail.relay_host, mail.relay_port
    domain = context.settings.health_check.dns_test_domain
    try:
        found = await context.resolver.mx(domain)
    except DNSFailure:
        raise Skipped("DNS gives no answers, see check.dns.resolver") from None
    except (NoRecords, NoSuchDomain):
        raise Skipped(f"{domain} has no MX to try: set Doctor:OutboundTarget") from None
    return found[0].host, mail.port


CHECK = Check(
    "check.outbound.port25",
    "Connections to other mail hosts get through",
    Severity.ERROR,
    ("outbound", "connectivity"),
    Page(
        what="Connects to `Doctor:OutboundTarget`, else to the smarthost `OutboundMail:RelayHost`, else to "
        "the first MX of "
        "`HealthCheck:DnsTestDomain`, and waits for its greeting. No mail is sent. It is left out where "
        "`OutboundMail:Enabled` is false.",
        why="Most providers block port 25 to the outside until they are asked. Then no mail leaves, and "
        "senders are told "
        "so days later.",
        causes=(
            "The provider blocks outgoing port 25 (all large clouds do)",
            "A firewall or network policy on the way",
            "The address of this machine is on a block list, and the receiver refuses the connection",
            "The smarthost's name or port is wrong",
        ),
        fix=setting(
            "OutboundMail__RelayHost=smtp.provider.example",
            "OutboundMail__RelayPort=587",
            "OutboundMail__RelayUsername=…",
            private="OutboundMail__RelayPassword=…",
            comment="ask the provider to open port 25, or send by a smarthost",
        )
        + Remedy(
            "nc -vw 8 gmail-smtp-in.l.google.com 25 </dev/null   # open by now?",
            "nc -vw 8 gmail-smtp-in.l.google.com 25 </dev/null   # open by now?",
            "# or, with Helm\nhelm upgrade relaymail docs/deploy/helm/relaymail --reuse-values "
            "--set smtp.host=smtp.provider.example --set smtp.port=587 --set smtp.useSsl=true "
            "--set smtp.existingSecret=smarthost",
        ),
        verify="nc -vw 8 gmail-smtp-in.l.google.com 25 </dev/null",
        related=("check.dns.resolver", "check.dns.ptr", "check.queue.due"),
    ),
    look,
    limit=20.0,
)
