"""Check of the MX records: does mail for the hosted domains come here."""

from __future__ import annotations

from ipaddress import ip_address

from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.dns_facts import Address, our_addresses, over_dns, record
from relaymail.doctor.page import Page, everywhere


@over_dns
async def look(context: Context) -> Finding:
    """Each hosted domain."""
    domains = context.public_domains
    ours = await our_addresses(context)
    found = await context.each(_domain(context, domain, ours) for domain in domains)
    bad = [(domain, problem) for domain, (problem, _, _) in zip(domains, found, strict=True) if problem]
    lines = [line for _, line, _ in found]
    if not bad:
        return passed("Mail for the hosted domains comes here", *lines)
    name = context.settings.smtp.server_name
    certain = any(certain for _, _, certain in found)
    return failed(
        f"Mail for {', '.join(domain for domain, _ in bad)} does not come here",
        *[problem for _, problem in bad],
        severity=Severity.ERROR if certain else Severity.WARN,
        publish=tuple(record(domain, "MX", f"10 {name}.") for domain, _ in bad),
        domains=[domain for domain, _ in bad],
    )


async def _domain(context: Context, domain: str, ours: set[Address]) -> tuple[str, str, bool]:
    """What is wrong with a domain (or nothing), what was seen, and whether it is certain."""
    records = sorted(
        (record.preference, record.exchange.to_text(omit_final_dot=True).lower() or ".")
        for record in await context.lookup(domain, "MX")
    )
    if not records:
        return f"{domain} has no MX records", "", True
    hosts = [host for _, host in records]
    if "." in hosts:
        return f"{domain} has a null MX: it says that it takes no mail (RFC 7505)", "", True
    seen = f"{domain}: MX {', '.join(hosts)}"
    if context.settings.smtp.server_name in hosts:
        return "", seen, False
    lost: list[str] = []
    for host in hosts:
        if await context.lookup(host, "CNAME"):
            return f"{domain}: its MX {host} is an alias (CNAME), which RFC 2181 10.3 forbids", seen, True
        addresses = {ip_address(text) for text in await context.addresses(host)}
        if addresses & ours:
            return "", seen, False
        if not addresses:
            lost.append(host)
    if len(lost) == len(hosts):
        return f"{domain}: its MX {', '.join(lost)} has no address", seen, True
    why = "which is not this host (unless it is a balancer or a filter in front of it)"
    return f"{domain}: its MX is {', '.join(hosts)}, {why}", seen, False


CHECK = Check(
    "check.dns.mx",
    "MX records of the hosted domains point here",
    Severity.ERROR,
    ("dns", "mx"),
    Page(
        what="Looks up the MX records of each domain of `Smtp:Mx:HostedDomains`: one of them has to be "
        "`Smtp:ServerName`, or to have an address of this host. Other hosts alone are a warning, since one "
        "may "
        "be a balancer in front of this one; no MX, a null MX, an alias or a name without address are "
        "errors.",
        why="Other hosts send mail for a domain where its MX records say. Without them it goes nowhere, or "
        "to whoever had "
        "the domain before.",
        causes=(
            "The domain is new, or was moved, and its MX still names the old provider",
            "`Smtp:ServerName` is not the name in the MX",
            "The record names an IP address or an alias",
            "The zone was changed less than a TTL ago",
        ),
        fix=everywhere(
            "# publish the record in the zone of the domain, at its DNS provider\n"
            "example.com. 3600 IN MX 10 mail.example.com."
        ),
        verify="dig +short MX example.com",
        related=("check.dns.addresses", "check.dns.ptr", "check.dns.mta-sts"),
    ),
    look,
    limit=20.0,
)
