"""``relaymail dkim``: the keys that outgoing mail is signed with."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import click
from twisted.internet.threads import deferToThread

from relaymail.cli.context import CommandFailed, Invocation, pass_invocation
from relaymail.cli.output import json_option, print_fields, print_json, print_table
from relaymail.message.dkim_keys import (
    ALGORITHMS,
    RSA_BITS,
    Algorithm,
    KeyProblem,
    check_selector,
    new_key,
    read_key,
    record_name,
    record_text,
    zone_line,
)
from relaymail.smtp.address import AddressError, ascii_domain, parse_mailbox
from relaymail.store import dkim as store
from relaymail.store.database import Database
from relaymail.store.dkim import DkimError, DkimKey, NewKey

EXAMPLES = """
\b
Examples:
  relaymail dkim new example.com
  relaymail dkim new example.com --algorithm both --subdomains
  relaymail dkim new example.com --selector mail --key-file /etc/relaymail/dkim/example.com.pem
  relaymail dkim show example.com
  relaymail dkim enable example.com s20260131
"""


def _domain(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A domain name in lower-case A-labels, as the keys have it."""
    if value is None:
        return None
    try:
        address = parse_mailbox(f"postmaster@{value.rstrip('.')}")
    except AddressError as error:
        raise click.BadParameter(f"{value!r} is no domain: {error}.") from None
    if address.domain.startswith("["):
        raise click.BadParameter("An address literal has no DNS records.")
    return ascii_domain(address.domain)


def _selector(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return check_selector(value)
    except KeyProblem as error:
        raise click.BadParameter(f"{error}.") from None


domain_argument = click.argument("domain", metavar="DOMAIN", callback=_domain)
selector_argument = click.argument("selector", metavar="SELECTOR", callback=_selector)


@click.group(epilog=EXAMPLES)
def dkim() -> None:
    """DKIM keys, which outgoing mail is signed with.

    A new key does not sign until it is enabled, so that its DNS record can be published first.
    """


@dkim.command("new")
@domain_argument
@click.option(
    "--selector",
    callback=_selector,
    help="The name of the key; of two keys, -rsa and -ed25519 are added.  [default: s and the date]",
)
@click.option(
    "--algorithm",
    type=click.Choice((*ALGORITHMS, "both")),
    default=None,
    help=f"RSA ({RSA_BITS} bits) is what everybody verifies; Ed25519 is a second signature for those who do."
    "  [default: rsa, or what is in the file]",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Use the key in this file (PEM), and leave it there: every host must find it under this path.",
)
@click.option("--subdomains", is_flag=True, help="Sign for domains below DOMAIN, too.")
@click.option("--enable", is_flag=True, help="Sign with it at once.")
@json_option
@pass_invocation
def new(
    invocation: Invocation,
    domain: str,
    selector: str | None,
    algorithm: Literal["rsa", "ed25519", "both"] | None,
    key_file: Path | None,
    subdomains: bool,
    enable: bool,
    as_json: bool,
) -> None:
    """Make a key for DOMAIN and print the DNS record to publish."""
    if key_file is not None and algorithm == "both":
        raise click.UsageError("--key-file holds one key: give --algorithm rsa or ed25519, or none.")
    wanted: tuple[Algorithm, ...] = ALGORITHMS if algorithm == "both" else (algorithm or "rsa",)
    base = selector or f"s{datetime.now(UTC):%Y%m%d}"

    def made() -> list[NewKey]:
        if key_file is not None:
            return [_from_file(domain, base, key_file, algorithm, subdomains, enable)]
        names = {each: base if len(wanted) == 1 else f"{base}-{each}" for each in wanted}
        return [_made(domain, names[each], each, subdomains, enable) for each in wanted]

    async def work(database: Database) -> list[DkimKey]:
        try:
            return await store.add(database, await deferToThread(made))
        except KeyProblem as error:
            raise CommandFailed(f"{key_file}: {error}.") from None
        except DkimError as error:
            raise CommandFailed(str(error)) from None

    _print_records(invocation.with_database(work), as_json)


def _from_file(
    domain: str, selector: str, path: Path, algorithm: str | None, subdomains: bool, active: bool
) -> NewKey:
    key = read_key(store.read_file(path), domain, selector)
    if algorithm not in (None, key.algorithm):
        raise KeyProblem(f"it holds a key of the other algorithm, {key.algorithm}")
    return NewKey(key, "", str(path.absolute()), subdomains, active)


def _made(domain: str, selector: str, algorithm: Algorithm, subdomains: bool, active: bool) -> NewKey:
    pem = new_key(algorithm)
    return NewKey(read_key(pem, domain, selector), pem.decode(), None, subdomains, active)


@dkim.command("list")
@click.argument("domain", metavar="[DOMAIN]", required=False, callback=_domain)
@json_option
@pass_invocation
def list_(invocation: Invocation, domain: str | None, as_json: bool) -> None:
    """List the keys of DOMAIN, or all. Of several that are enabled, the newest of each algorithm signs."""
    keys = invocation.with_database(lambda database: store.list_keys(database, domain))
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    rows = [
        (k.domain, k.selector, k.algorithm, k.active, k.subdomains, k.created_at, k.key_file) for k in keys
    ]
    headings = ("DOMAIN", "SELECTOR", "ALGORITHM", "ENABLED", "SUBDOMAINS", "CREATED", "KEY FILE")
    print_table(headings, rows, empty="There are no DKIM keys: mail is sent unsigned.")


@dkim.command("show")
@domain_argument
@click.argument("selector", metavar="[SELECTOR]", required=False, callback=_selector)
@json_option
@pass_invocation
def show(invocation: Invocation, domain: str, selector: str | None, as_json: bool) -> None:
    """Print the DNS records of the keys of DOMAIN, or of one of them."""
    keys = invocation.with_database(lambda database: store.list_keys(database, domain, selector))
    if not keys:
        raise CommandFailed(f"{domain} has no key{f' {selector}' if selector else ''}.")
    _print_records(keys, as_json)


@dkim.command("enable")
@domain_argument
@selector_argument
@json_option
@pass_invocation
def enable(invocation: Invocation, domain: str, selector: str, as_json: bool) -> None:
    """Sign with a key from now on, in all hosts. Its DNS record must be published by then."""
    _changed(invocation, lambda database: store.set_active(database, domain, selector, True), as_json)


@dkim.command("disable")
@domain_argument
@selector_argument
@json_option
@pass_invocation
def disable(invocation: Invocation, domain: str, selector: str, as_json: bool) -> None:
    """Sign with a key no longer. Its record is needed for as long as mail signed with it is under way."""
    _changed(invocation, lambda database: store.set_active(database, domain, selector, False), as_json)


@dkim.command("remove")
@domain_argument
@selector_argument
@json_option
@pass_invocation
def remove(invocation: Invocation, domain: str, selector: str, as_json: bool) -> None:
    """Forget a key for good. A file it is in stays where it is."""
    _changed(invocation, lambda database: store.remove(database, domain, selector), as_json)


def _changed(invocation: Invocation, change: Any, as_json: bool) -> None:
    async def work(database: Database) -> DkimKey:
        try:
            key: DkimKey = await change(database)
            return key
        except DkimError as error:
            raise CommandFailed(str(error)) from None

    key = invocation.with_database(work)
    if as_json:
        print_json(_shown(key))
    else:
        print_fields([("domain", key.domain), ("selector", key.selector), ("enabled", key.active)])


def _shown(key: DkimKey) -> dict[str, object]:
    """The key with its DNS record, as JSON has it."""
    text = record_text(key.algorithm, key.public_key)
    return asdict(key) | {
        "record_name": record_name(key.domain, key.selector),
        "record_text": text,
        "zone_line": zone_line(key.domain, key.selector, text),
    }


def _print_records(keys: list[DkimKey], as_json: bool) -> None:
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    for number, key in enumerate(keys):
        if number:
            click.echo()
        shown = _shown(key)
        print_fields(
            [
                ("domain", key.domain),
                ("selector", key.selector),
                ("algorithm", key.algorithm),
                ("enabled", key.active),
                ("subdomains", key.subdomains),
                *([("key file", key.key_file)] if key.key_file else []),
                ("TXT record", shown["record_name"]),
                ("its text", shown["record_text"]),
            ]
        )
        click.echo(f"\nThe same as a line of a zone file:\n{shown['zone_line']}")
    if not all(key.active for key in keys):
        click.echo("\nPublish the record, and then: relaymail dkim enable DOMAIN SELECTOR", err=True)
