"""Check of reverse DNS: does each address lead back to the server's name."""

from __future__ import annotations

from ipaddress import ip_address

import dns.reversename

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context, reserved
from relaymail.doctor.dns_facts import over_dns, public, record, server_addresses
from relaymail.doctor.page import Page, everywhere


@over_dns
async def look(context: Context) -> Finding:
    """PTR of each public address, and back again."""
    if not context.outbound:
        raise Skipped("no mail is sent to other hosts, which are the ones who ask for it")
    if context.settings.outbound_mail.relay_host:
        raise Skipped("mail leaves by the smarthost, whose address counts")
    if reserved(context.settings.smtp.server_name):
        raise Skipped("the server's name is reserved for tests (RFC 6761)")
    addresses = [text for text in await server_addresses(context) if public(ip_address(text))]
    if not addresses:
        raise Skipped("the server's name has no public address, see check.dns.addresses")
    results = await context.each(_address(context, address) for address in addresses)
    problems = [problem for problem, _ in results if problem]
    seen = [line for _, line in results]
    if not problems:
        return passed("Reverse DNS leads back to the server's name", *seen)
    name = context.settings.smtp.server_name
    wrong = [address for address, (problem, _) in zip(addresses, results, strict=True) if problem]
    return failed(
        f"Reverse DNS of {', '.join(wrong)} is wrong",
        *problems,
        publish=tuple(record(_reverse(address), "PTR", f"{name}.") for address in wrong),
    )


async def _address(context: Context, address: str) -> tuple[str, str]:
    """What is wrong with an address, or nothing, and what was seen."""
    found = await context.lookup(_reverse(address), "PTR")
    names = [pointer.target.to_text(omit_final_dot=True).lower() for pointer in found]
    if not names:
        return f"{address} has no PTR record", ""
    for name in names:
        if address in await context.addresses(name):
            return "", f"{address} -> {name} -> {address}"
    return f"{address} -> {', '.join(names)}, which does not lead back to {address}", ""


def _reverse(address: str) -> str:
    return dns.reversename.from_address(address).to_text(omit_final_dot=True)


CHECK = Check(
    "check.dns.ptr",
    "Reverse DNS is set and leads back",
    Severity.WARN,
    ("dns", "outbound"),
    Page(
        what="Looks up the PTR record of each public address of `Smtp:ServerName`, and whether a name in it "
        "has that "
        "address again.",
        why="Large receivers (Google, Microsoft, GMX) refuse or defer mail from addresses without it.",
        causes=(
            "The PTR is set by the owner of the address: the hosting provider, not the DNS provider of the "
            "domain",
            "IPv6 was switched on, and only IPv4 has a PTR",
            "Mail leaves through a NAT, with another address than the name has",
        ),
        fix=everywhere(
            "# in the console of the hosting provider, for the address of the server\n"
            "25.2.0.192.in-addr.arpa. 3600 IN PTR mail.example.com."
        ),
        verify="dig +short -x 192.0.2.25",
        related=("check.dns.addresses", "check.dns.spf"),
    ),
    look,
    limit=20.0,
)
