"""Check of DMARC: does each hosted domain have a policy."""

from __future__ import annotations

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.dns_facts import over_dns, txt
from relaymail.doctor.page import Page, everywhere

BEGIN = "v=DMARC1"
POLICIES = frozenset({"none", "quarantine", "reject"})


@over_dns
async def look(context: Context) -> Finding:
    """Each hosted domain's record, or that of the domain above."""
    domains = context.public_domains
    if not context.outbound:
        raise Skipped("no mail is sent to other hosts")
    found = await context.each(_domain(context, domain) for domain in domains)
    problems = [(domain, text, hard) for domain, (text, hard) in zip(domains, found, strict=True) if text]
    if not problems:
        return passed("Each hosted domain has a DMARC policy that protects it")
    broken = [domain for domain, _, hard in problems if hard]
    return failed(
        f"DMARC is missing or wrong for {', '.join(broken)}" if broken else "DMARC only reports",
        *[text for _, text, _ in problems],
        severity=None if broken else Severity.INFO,
        publish=tuple(
            txt(f"_dmarc.{domain}", f"{BEGIN}; p=quarantine; rua=mailto:postmaster@{domain}")
            for domain in broken
        ),
        domains=[domain for domain, _, _ in problems],
    )


async def _domain(context: Context, domain: str) -> tuple[str, bool]:
    """What is wrong (empty: nothing), and whether it has to be mended."""
    candidates = [domain]
    above = domain.partition(".")[2]
    if "." in above:
        candidates.append(above)
    for name in candidates:
        records = await context.texts(f"_dmarc.{name}", BEGIN)
        if len(records) > 1:
            return f"_dmarc.{name} has {len(records)} records, which counts as none", True
        if records:
            return _policy(name, records[0])
    return f"_dmarc.{domain} has no record", True


def _policy(name: str, record: str) -> tuple[str, bool]:
    tags = {
        key.strip().lower(): value.strip()
        for key, _, value in (part.partition("=") for part in record.split(";"))
    }
    policy = tags.get("p", "").lower()
    if policy not in POLICIES:
        return f"_dmarc.{name}: p= is {policy or 'missing'}, allowed are {', '.join(sorted(POLICIES))}", True
    if policy == "none":
        return f"_dmarc.{name}: p=none asks receivers to report only, and to take forged mail", False
    return "", False


CHECK = Check(
    "check.dns.dmarc",
    "DMARC policy is published",
    Severity.WARN,
    ("dns", "outbound"),
    Page(
        what="Reads `_dmarc.DOMAIN` (RFC 7489) of each hosted domain, else of the domain above it. No "
        "record, several or "
        "an unreadable policy are a warning, `p=none` is only told.",
        why="Google, Yahoo and Microsoft want a DMARC record of whoever sends much mail. With `quarantine` "
        "or `reject` "
        "forged mail in the domain's name is not taken for real.",
        causes=(
            "No record was published",
            "Two records, after a change of providers",
            "A typing error in `p=`",
        ),
        fix=everywhere(
            "# publish the record in the zone of the domain; begin with p=none where other hosts send for "
            "it, too\n"
            '_dmarc.example.com. 3600 IN TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@example.com"'
        ),
        verify="dig +short TXT _dmarc.example.com",
        related=("check.dns.spf", "check.dns.dkim"),
    ),
    look,
    limit=20.0,
)
