"""Names of hosts and domains, and addresses of users."""

from __future__ import annotations

import re
from ipaddress import ip_address

import idna

from relaymail.settings.errors import SettingsError

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")


def parse_domain(text: str) -> str:
    """A domain as lower-case A-labels (RFC 5890), without a final dot; raises :class:`SettingsError`."""
    name = _labels(text)
    if "_" in name:
        raise SettingsError("not a domain name")
    if name.rpartition(".")[2].isdigit():
        raise SettingsError("an IP address is no domain name")
    return name


def parse_host(text: str) -> str:
    """A host name (as a domain, underscores allowed, as container networks have them) or an IP address."""
    text = text.strip()
    try:
        return str(ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return _labels(text)


def parse_mailbox(text: str) -> str:
    """An address ``local@domain`` of a user, its domain as :func:`parse_domain` gives it."""
    local, at, domain = text.strip().rpartition("@")
    if not at or not local or len(local.encode("utf-8", "replace")) > 64 or re.search(r"[\s<>@]", local):
        raise SettingsError("not an address")
    if not local.isprintable():
        raise SettingsError("not an address")
    return f"{local}@{parse_domain(domain)}"


def _labels(text: str) -> str:
    name = text.strip()
    if "@" in name:
        raise SettingsError("an address is no domain name; give what is behind the @")
    if "*" in name:
        raise SettingsError("wildcards are not known; list each domain")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except UnicodeError:
            raise SettingsError("not a domain name by IDNA (RFC 5891)") from None
    name = name.lower().removesuffix(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise SettingsError("not a domain name")
    return name
