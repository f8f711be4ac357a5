"""``relaymail limits``: what the running hosts count of their clients."""

from __future__ import annotations

import ipaddress
from typing import Any, Literal

import click
import msgspec

from relaymail.cli.context import CommandFailed, Invocation, pass_invocation
from relaymail.cli.output import json_option, print_json, print_table
from relaymail.hosting.limit_desk import HostState, ListenerState
from relaymail.smtp.limits import network_of
from relaymail.store import limits as store
from relaymail.store.database import Database

EXAMPLES = """
\b
Examples:
  relaymail limits show
  relaymail limits reset 192.0.2.7
  relaymail limits reset 2001:db8:1:2::7
"""


def _client(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """What a client is counted as, given as an IP address, or as an IPv6 /64 in the way `show` prints it."""
    if value is None:
        return None
    try:
        return network_of(str(ipaddress.ip_address(value.removesuffix("/64"))))
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither an IP address nor an IPv6 /64.") from None


@click.group(epilog=EXAMPLES)
def limits() -> None:
    """Limits on clients: what the running hosts have counted."""


@limits.command("show")
@json_option
@pass_invocation
def show(invocation: Invocation, as_json: bool) -> None:
    """Show the connections, rates and failed logins of each client that has some.

    Every host that runs on the database answers. Clients in Smtp:Limits:ExemptNetworks are not counted.
    """
    hosts = _ask(invocation, "show", None)
    if as_json:
        print_json(hosts)
        return
    clients = [
        (host.host, listener.listener, client.client, *_counts(listener, number), client.refused)
        for host in hosts
        for listener in host.listeners
        for number, client in enumerate(listener.clients)
    ]
    headings = ("HOST", "LISTENER", "CLIENT", "OPEN", "CONNECTIONS/MIN", "MESSAGES/MIN", "RECIPIENTS/MIN")
    print_table((*headings, "REFUSED"), clients, empty="No client is counted at the moment.")
    logins = [
        (host.host, login.client, login.failures, f"{login.wait:.0f} s")
        for host in hosts
        for login in host.failed_logins
    ]
    if logins:
        click.echo()
        print_table(("HOST", "CLIENT", "FAILED LOGINS", "MAY TRY IN"), logins, empty="")
    for host in hosts:
        click.echo(f"{host.host}: {host.connections} connections open in all", err=True)


def _counts(listener: ListenerState, number: int) -> list[str]:
    """What the client has of what it may have."""
    client = listener.clients[number]
    counts = {name: getattr(client, name) for name in listener.limits}
    return [f"{count}/{listener.limits[name] or '-'}" for name, count in counts.items()]


@limits.command("reset")
@click.argument("client", required=False, callback=_client)
@json_option
@pass_invocation
def reset(invocation: Invocation, client: str | None, as_json: bool) -> None:
    """Forget the rates and failed logins of CLIENT (an IP address), or of all clients.

    Connections that are open stay counted.
    """
    hosts = _ask(invocation, "reset", client)
    if as_json:
        print_json([{"host": host.host, "forgotten": host.forgotten} for host in hosts])
        return
    for host in hosts:
        if client is None:
            click.echo(f"{host.host}: {host.forgotten} entries are forgotten.")
        else:
            click.echo(f"{host.host}: {client} {'is forgotten' if host.forgotten else 'was not counted'}.")


def _ask(invocation: Invocation, command: Literal["show", "reset"], client: str | None) -> list[HostState]:
    async def work(database: Database, clock: Any) -> list[str]:
        return await store.ask(database, command, client, clock=clock)

    answers = invocation.with_database_and_clock(work)
    if not answers:
        raise CommandFailed(
            f"No host answered within {store.PATIENCE:.0f} seconds: none runs on this database, or it cannot "
            "reach it."
        )
    return [msgspec.json.decode(answer, type=HostState) for answer in answers]
