"""Check of MTA-STS: do hosted domains ask for TLS, and is their policy right."""

from __future__ import annotations

from relaymail.delivery.mta_sts_policy import (
    PolicyError,
    parse_policy,
    parse_records,
    policy_host,
    record_name,
)
from relaymail.delivery.policy_fetch import FetchFailed
from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.dns_facts import over_dns, txt
from relaymail.doctor.page import Page, everywhere


@over_dns
async def look(context: Context) -> Finding:
    """Record and policy of each hosted domain."""
    domains = context.public_domains
    found = await context.each(_domain(context, domain) for domain in domains)
    absent = [domain for domain, (state, _) in zip(domains, found, strict=True) if state == "absent"]
    broken = [domain for domain, (state, _) in zip(domains, found, strict=True) if state == "broken"]
    lines = [line for _, line in found]
    if broken:
        return failed(
            f"MTA-STS is broken for {', '.join(broken)}",
            *lines,
            severity=Severity.WARN,
            domains=broken,
        )
    if absent:
        name = context.settings.smtp.server_name
        return failed(
            f"MTA-STS is not used for {', '.join(absent)}",
            *lines,
            f"and serve https://mta-sts.DOMAIN/.well-known/mta-sts.txt: version: STSv1, mode: testing, mx: "
            f"{name}, "
            "max_age: 604800 (a line each)",
            publish=tuple(txt(record_name(domain), "v=STSv1; id=1;") for domain in absent),
            domains=absent,
        )
    return passed("Each hosted domain has a policy of MTA-STS that names its MX", *lines)


async def _domain(context: Context, domain: str) -> tuple[str, str]:
    """``good``, ``absent`` or ``broken``, and why."""
    texts = await context.texts(record_name(domain), "v=STSv1")
    if not texts:
        return "absent", f"{domain} has no record {record_name(domain)}"
    try:
        parse_records(texts)
        policy = parse_policy(await context.policies.fetch(domain))
    except (PolicyError, FetchFailed) as error:
        return "broken", f"https://{policy_host(domain)}: {error}"
    hosts = [
        record.exchange.to_text(omit_final_dot=True).lower() for record in await context.lookup(domain, "MX")
    ]
    strange = [host for host in hosts if policy.mode != "none" and not policy.names(host)]
    if strange:
        return "broken", f"{domain}: the policy does not name the MX {', '.join(strange)}"
    return "good", f"{domain}: mode {policy.mode}"


CHECK = Check(
    "check.dns.mta-sts",
    "MTA-STS asks others for TLS",
    Severity.INFO,
    ("dns", "mx", "tls"),
    Page(
        what="Reads the record `_mta-sts.DOMAIN` of each hosted domain, fetches the policy (RFC 8461) and "
        "compares it with "
        "the MX records. None at all is only told; one that is broken is a warning.",
        why="Without it other hosts send mail in clear when an attacker on the way asks them to. A policy in "
        "mode "
        "`enforce` that does not name the MX makes other hosts keep their mail.",
        causes=(
            "The web server of the policy is down, or its certificate is for another name",
            "The MX was changed, and the policy was not",
            "The record was published, and the policy was not",
        ),
        fix=everywhere(
            "# publish the record, and change its id with each change of the policy\n"
            '_mta-sts.example.com. 3600 IN TXT "v=STSv1; id=1;"\n'
            "# serve the policy at https://mta-sts.example.com/.well-known/mta-sts.txt as text/plain\n"
            "printf 'version: STSv1\\nmode: testing\\nmx: mail.example.com\\nmax_age: 604800\\n' "
            "> /var/www/mta-sts/.well-known/mta-sts.txt"
        ),
        verify="dig +short TXT _mta-sts.example.com\ncurl -s "
        "https://mta-sts.example.com/.well-known/mta-sts.txt",
        related=("check.dns.mx", "check.tls.chain", "check.tls.names"),
    ),
    look,
    limit=20.0,
)
