"""Check of SPF: may this host send for the hosted domains."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.dns_facts import Address, our_addresses, over_dns, public, txt
from relaymail.doctor.page import Page, everywhere
from relaymail.doctor.spf import BEGIN, Evaluation, PermanentError


@over_dns
async def look(context: Context) -> Finding:
    """Evaluate the record of each domain for the addresses that this host sends from."""
    domains = context.public_domains
    if not context.outbound:
        raise Skipped("no mail is sent to other hosts")
    relay = context.settings.outbound_mail.relay_host
    ours = {address for address in await our_addresses(context) if public(address)}
    checked = set() if relay else ours
    found = await context.each(_domain(context, domain, checked) for domain in domains)
    problems = [problem for problem in found if problem]
    bad = [domain for domain, problem in zip(domains, found, strict=True) if problem]
    if problems:
        return failed(
            f"SPF is missing or wrong for {', '.join(bad)}",
            *problems,
            publish=tuple(_record(domain, ours, relay) for domain in bad),
            domains=bad,
        )
    if not checked:
        what = "the smarthost's addresses" if relay else "addresses, as none of this host's is public"
        return passed(f"Each domain has an SPF record; not compared with {what}")
    return passed("SPF lets this host send for the hosted domains")


async def _domain(context: Context, domain: str, addresses: set[Address]) -> str:
    """What is wrong with a domain; empty: nothing."""
    if not await context.texts(domain, BEGIN):
        return f"{domain} has no SPF record"
    for address in sorted(addresses, key=str) or []:
        evaluation = Evaluation(context)
        try:
            verdict = await evaluation.check(domain, address)
        except PermanentError as why:
            return f"{domain}: {why}"
        if verdict in ("fail", "softfail"):
            return f"{domain}: SPF says {verdict} for {address}"
        if verdict != "pass":
            return f"{domain}: SPF does not mention {address} ({verdict})"
    records = await context.texts(domain, BEGIN)
    return f"{domain} has {len(records)} SPF records, only one is allowed" if len(records) > 1 else ""


def _record(domain: str, addresses: set[Address], relay: str | None) -> str:
    """A record that would do."""
    named = " ".join(f"ip{address.version}:{address}" for address in sorted(addresses, key=str))
    if relay:
        named = f"a:{relay}"
    return txt(domain, " ".join(filter(None, (BEGIN, "mx", named, "-all"))))


CHECK = Check(
    "check.dns.spf",
    "SPF lets this host send",
    Severity.WARN,
    ("dns", "outbound"),
    Page(
        what="Reads the SPF record (RFC 7208) of each hosted domain and evaluates it for the public "
        "addresses of this "
        "host, includes and redirects followed. With a smarthost it only has to be there.",
        why="Receivers take mail for forged when the sender's domain does not list the host it comes from, "
        "and DMARC then "
        "refuses it.",
        causes=(
            "No record, or two of them",
            "The record lists the old provider only",
            "Mail leaves over IPv6, and only IPv4 is listed",
            "More than 10 look-ups by nested includes",
        ),
        fix=everywhere(
            "# publish the record in the zone of the domain; only one may begin with v=spf1\n"
            'example.com. 3600 IN TXT "v=spf1 mx ip4:192.0.2.25 -all"'
        ),
        verify="dig +short TXT example.com | grep v=spf1",
        related=("check.dns.dkim", "check.dns.dmarc", "check.dns.ptr"),
    ),
    look,
    limit=20.0,
)
