"""Check of the server's name: does it have addresses that others can reach."""

from __future__ import annotations

from ipaddress import ip_address

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context, reserved
from relaymail.doctor.dns_facts import over_dns, public, record, sending_addresses, server_addresses
from relaymail.doctor.page import Page, everywhere, setting


@over_dns
async def look(context: Context) -> Finding:
    """A and AAAA of ``Smtp:ServerName``."""
    name = context.settings.smtp.server_name
    if "." in name and reserved(name):
        raise Skipped(f"{name} is reserved for tests (RFC 6761), DNS knows no such name")
    if "." not in name or _is_address(name):
        if not (context.settings.smtp.mx.enabled or context.outbound):
            raise Skipped("Smtp:ServerName is no full domain name, and no other host meets this one")
        return failed(
            f"Smtp:ServerName is {name}: other hosts want a full domain name",
            "as long as it is none, no mail is sent to other hosts",
        )
    addresses = await server_addresses(context)
    if not addresses:
        local = [ip_address(text) for text in await context.aside(sending_addresses)]
        return failed(
            f"{name} has no address in DNS",
            publish=tuple(
                record(name, "A" if one.version == 4 else "AAAA", str(one)) for one in local if public(one)
            ),
        )
    private = [text for text in addresses if not public(ip_address(text))]
    listed = f"{name} is {', '.join(addresses)}"
    if private:
        return failed(
            f"{name} has addresses that nobody else can reach: {', '.join(private)}",
            listed,
            severity=Severity.WARN,
            addresses=addresses,
        )
    return passed(listed, addresses=addresses)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


CHECK = Check(
    "check.dns.addresses",
    "Server's name has public addresses",
    Severity.WARN,
    ("dns",),
    Page(
        what="Looks up A and AAAA of `Smtp:ServerName`: there has to be one, and none that is private or of "
        "a loopback.",
        why="Clients and other hosts connect by this name. A next host that finds no address for the name in "
        "our EHLO "
        "often refuses the mail.",
        causes=(
            "`Smtp:ServerName` is still `localhost`",
            "The record is missing, or was never published to the outside",
            "A split DNS: this machine sees the inner address; then this is as it should be",
        ),
        fix=setting("Smtp__ServerName=mail.example.com")
        + everywhere("# and publish the record\nmail.example.com. 3600 IN A 192.0.2.25"),
        verify="dig +short A mail.example.com; dig +short AAAA mail.example.com",
        related=("check.dns.ptr", "check.dns.mx", "check.tls.names"),
    ),
    look,
    limit=20.0,
)
