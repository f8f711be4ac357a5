"""Check of DKIM: is the public half of each key published."""

from __future__ import annotations

import re

from relaymail.doctor.check import Check, Finding, Severity, Skipped, failed, passed
from relaymail.doctor.context import Context, reserved
from relaymail.doctor.dns_facts import over_dns, txt
from relaymail.doctor.page import Page, inside
from relaymail.message.dkim_keys import record_name, record_text
from relaymail.store.database import Database
from relaymail.store.dkim import DkimKey, list_keys

KEYS = 50
"""Keys looked at."""


@over_dns
async def look(context: Context) -> Finding:
    """Compare what is in DNS with the keys that sign."""
    if not context.outbound:
        raise Skipped("no mail is sent to other hosts")

    async def keys_of(database: Database) -> list[DkimKey]:
        return list(await list_keys(database))

    keys = [key for key in await context.ask(keys_of) if key.active and not reserved(key.domain)][:KEYS]
    mx = context.settings.smtp.mx
    hosted = [domain for domain in mx.hosted_domains if mx.enabled and not reserved(domain)]
    unsigned = [domain for domain in hosted if not any(_signs(key, domain) for key in keys)]
    if not keys and not unsigned:
        raise Skipped("no domain has an active key, and none is hosted")
    problems = await context.each(_key(context, key) for key in keys)
    bad = [key for key, problem in zip(keys, problems, strict=True) if problem]
    lines = [problem for problem in problems if problem]
    lines += [f"{domain} has no active key: its mail is not signed" for domain in unsigned]
    if lines:
        return failed(
            "DKIM is incomplete",
            *lines,
            severity=Severity.ERROR if bad else None,
            publish=tuple(_record(key) for key in bad),
            unsigned=unsigned,
            unpublished=[f"{key.selector}._domainkey.{key.domain}" for key in bad],
        )
    return passed(f"The {len(keys)} active keys are published, and every hosted domain has one")


def _signs(key: DkimKey, domain: str) -> bool:
    return key.domain == domain or (key.subdomains and domain.endswith(f".{key.domain}"))


async def _key(context: Context, key: DkimKey) -> str:
    """What is wrong with a key's record; empty: nothing."""
    name = record_name(key.domain, key.selector)
    texts = [text for text in await context.texts(name, "") if re.search(r"(?:^|;)\s*p\s*=", text)]
    if not texts:
        return f"{name}: no record, so its signatures are worth nothing"
    published = [_tag(text, "p") for text in texts]
    if published == [""]:
        return f"{name}: the key is revoked in DNS (p= is empty), but still signs"
    if key.public_key not in published:
        return f"{name}: another key is published, so every signature is wrong"
    return "" if len(texts) == 1 else f"{name}: {len(texts)} records, only one is allowed"


def _tag(record: str, wanted: str) -> str:
    for part in record.split(";"):
        name, _, value = part.partition("=")
        if name.strip() == wanted:
            return re.sub(r"\s+", "", value)
    return ""


def _record(key: DkimKey) -> str:
    return txt(record_name(key.domain, key.selector), record_text(key.algorithm, key.public_key))


CHECK = Check(
    "check.dns.dkim",
    "DKIM keys are published",
    Severity.WARN,
    ("dns", "outbound"),
    Page(
        what="Compares the active DKIM keys in the database with what is published at "
        "`SELECTOR._domainkey.DOMAIN`. A "
        "hosted domain without a key is a warning; a key that signs and is not published as it is, an error.",
        why="Receivers check the signature with the published key. A signature that does not fit counts as "
        "worse than "
        "none, and DMARC needs one that fits.",
        causes=(
            "The record was not published, or a long key was cut by the DNS provider's form",
            "The key was made anew under the same selector",
            "The key was activated before the record could be seen everywhere",
        ),
        fix=inside(
            "relaymail dkim list",
            comment="prints the records; `dkim new DOMAIN` makes a key where there is none",
        ),
        verify="dig +short TXT selector._domainkey.example.com",
        related=("check.dns.spf", "check.dns.dmarc"),
    ),
    look,
    limit=25.0,
)
