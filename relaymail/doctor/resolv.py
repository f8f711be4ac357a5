"""Which DNS servers are asked."""

from __future__ import annotations

from relaymail.dns.servers import read_resolv_conf
from relaymail.doctor.context import Context


async def servers(context: Context) -> list[str]:
    """Their addresses, in the order in which they are asked."""
    given = context.settings.dns.servers
    if given:
        return [server.address for server in given]
    return [server.address for server in await context.aside(read_resolv_conf)]


async def where(context: Context) -> str:
    """The servers in words."""
    source = "Dns:Servers" if context.settings.dns.servers else "/etc/resolv.conf"
    return f"{', '.join(await servers(context))} ({source})"
