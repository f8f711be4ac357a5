"""Check of DNSSEC: does somebody whose word counts validate."""

from __future__ import annotations

from ipaddress import ip_address

from relaymail.dns import DNSError, DNSFailure
from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import LOOKUP_LIMIT, Context
from relaymail.doctor.page import Page, Remedy
from relaymail.doctor.resolv import servers, where

SIGNED = "org"
"""A zone that is signed, and will be."""


async def look(context: Context) -> Finding:
    """The AD bit of an answer that is signed, from a server that is trusted."""
    trusted = context.settings.dns.trusted_validator
    asked = await servers(context)
    told = f"servers asked: {await where(context)}"
    if not any(ip_address(server) in network for server in asked for network in trusted):
        return failed(
            "The DNS servers are not among Dns:TrustedValidator: DANE is not used",
            told,
            f"trusted: {', '.join(map(str, trusted)) or 'nobody'}",
            trustsServers=False,
        )
    try:
        answer = await context.resolver.lookup(SIGNED, "SOA", fresh=True, limit=LOOKUP_LIMIT)
    except DNSFailure:
        raise Skipped("DNS gives no answers, see check.dns.resolver") from None
    except DNSError:
        raise Skipped(
            f"DNS does not know {SIGNED}: it is a network of its own, and nothing is signed"
        ) from None
    if not answer.authenticated:
        return failed("The DNS server does not validate: DANE is not used", told, trustsServers=True)
    return passed("The DNS server validates, and its word counts", told, trustsServers=True)


_UNBOUND = (
    "apt-get install -y unbound\n"
    "printf 'nameserver 127.0.0.1\\noptions edns0 trust-ad\\n' > /etc/resolv.conf\n"
)

CHECK = Check(
    "check.dns.validation",
    "DNS is validated (DNSSEC)",
    Severity.INFO,
    ("dns", "outbound"),
    Page(
        what=f"Asks for a signed zone (`{SIGNED}`), and looks whether the answer is marked as validated (AD) "
        "by a server "
        "of `Dns:TrustedValidator`.",
        why="DANE (RFC 7672) pins the certificates of next hosts by signed DNS records. An AD bit counts "
        "only from a "
        "validating server that nobody can get in between of: usually one on this machine. Without it mail "
        "is "
        "still encrypted where the next host offers it, but an attacker on the way can take that off.",
        causes=(
            "The servers are those of the provider or of the container runtime",
            "A forwarder on this machine that does not validate",
        ),
        fix=Remedy(
            "cat > relaymail-dns.yaml <<'END'\nservices:\n  unbound:\n    image: klutchell/unbound\n"
            "    networks: {default: {ipv4_address: 172.30.0.53}}\n  relaymail:\n    environment:\n"
            "      Dns__Servers__0: 172.30.0.53\n      Dns__TrustedValidator__0: 172.30.0.53\n"
            "networks:\n  default: {ipam: {config: [{subnet: 172.30.0.0/24}]}}\nEND\n"
            "docker compose -f compose.yaml -f relaymail-dns.yaml up -d",
            _UNBOUND + "printf '%s\\n' 'Dns__Servers__0=127.0.0.1' >> /etc/relaymail/environment\n"
            "systemctl restart relaymail",
            "# run unbound as a second container of the pod; it is then on the loopback address\n"
            "kubectl set env deployment/relaymail Dns__Servers__0=127.0.0.1",
        ),
        verify="dig +adflag SOA org | grep 'flags:.* ad'",
        related=("check.dns.resolver", "check.dns.mta-sts"),
    ),
    look,
)
