"""Check of DNS itself: is there a server that answers."""

from __future__ import annotations

from relaymail.dns import DNSFailure, NoRecords, NoSuchDomain
from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import LOOKUP_LIMIT, Context
from relaymail.doctor.page import Page, setting
from relaymail.doctor.resolv import where

_FAILURES = {
    "timeout": "no answer in time",
    "servfail": "the server answers SERVFAIL",
    "refused": "the server refuses to answer (REFUSED)",
    "network": "no server can be reached",
}


async def look(context: Context) -> Finding:
    """The MX of ``HealthCheck:DnsTestDomain``, as the host's own check asks for it."""
    domain = context.settings.health_check.dns_test_domain
    servers = f"servers asked: {await where(context)}"
    try:
        found = await context.resolver.mx(domain, fresh=True, limit=LOOKUP_LIMIT)
    except NoSuchDomain:
        return failed(
            f"DNS works, but {domain} does not exist",
            "HealthCheck:DnsTestDomain has to be a domain with MX records",
            servers,
            severity=Severity.WARN,
        )
    except NoRecords:
        return failed(
            f"DNS works, but {domain} has no MX records",
            "HealthCheck:DnsTestDomain has to be a domain with MX records",
            servers,
            severity=Severity.WARN,
        )
    except DNSFailure as failure:
        return failed(
            f"DNS does not work: {_FAILURES[failure.kind]}", f"asked for the MX of {domain}", servers
        )
    return passed(f"DNS works ({domain} -> {found[0].host})", servers)


CHECK = Check(
    "check.dns.resolver",
    "DNS answers",
    Severity.ERROR,
    ("dns", "connectivity"),
    Page(
        what="Asks the servers of `Dns:Servers` (else those of `/etc/resolv.conf`) for the MX records of "
        "`HealthCheck:DnsTestDomain`.",
        why="Without DNS no next host is found: mail for elsewhere waits in the queue. `/healthz/ready` "
        "fails, so that "
        "no new mail comes in.",
        causes=(
            "The server in `/etc/resolv.conf` is gone, as after a change of networks",
            "A firewall blocks port 53 (UDP and TCP)",
            "The server answers its own network only (REFUSED)",
            "The machine has no way to the Internet, and the test domain is there",
        ),
        fix=setting("Dns__Servers__0=192.0.2.53", comment="name a server that can be reached"),
        verify="dig +short MX gmail.com @192.0.2.53",
        related=("check.dns.validation", "check.outbound.port25"),
    ),
    look,
)
