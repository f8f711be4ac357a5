"""DANE for SMTP: whether a host has TLSA records that count, and which (RFC 7672).

All that counts has been validated by a name server that we trust: the MX records, the host's address (or the
alias that leads there), the TLSA records. What cannot be looked up is not taken for absent: whoever can
suppress an answer could do away with the protection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relaymail.delivery.route import NextHost, Route
from relaymail.dns import DNSFailure, NoRecords, NoSuchDomain, Resolver
from relaymail.smtp.client_dane import CERTIFICATE, EXACT, TLSARecord


class TLSAFailed(Exception):
    """Whether the host has TLSA records could not be found out: it must not be used (RFC 7672 2.1.2)."""


@dataclass(frozen=True, slots=True)
class HostRecords:
    """A host's TLSA records: TLS is a must."""

    base: str
    """The name they belong to (TLSA base domain), which is what the host is asked for in SNI."""
    records: tuple[TLSARecord, ...]
    """The usable ones; empty: encryption is a must, but there is nothing to verify it with (RFC 7672 2.2)."""
    names: tuple[str, ...]
    """What the certificate may be for under DANE-TA (RFC 7672 3.2.3), ``base`` first."""


async def tlsa_records(resolver: Resolver, route: Route, host: NextHost) -> HostRecords | None:
    """The TLSA records of ``host`` on this ``route``; ``None``: DANE does not apply.

    The name of a relay comes from the settings, so that only its own records need to be validated.

    :raises TLSAFailed: DNS failed.
    """
    if route.kind == "literal" or (route.kind != "relay" and not route.secure):
        return None
    try:
        for base in await _base_domains(resolver, host):
            try:
                answer = await resolver.lookup(f"_{host.port}._tcp.{base}", "TLSA")
            except (NoSuchDomain, NoRecords):
                continue
            if answer.authenticated:
                next_hop = host.name if route.kind == "relay" else route.destination
                names = tuple(dict.fromkeys((base, host.name, next_hop)))
                return HostRecords(base, tuple(_usable(answer.records)), names)
    except DNSFailure as error:
        raise TLSAFailed(str(error)) from None
    return None


async def _base_domains(resolver: Resolver, host: NextHost) -> tuple[str, ...]:
    """The names whose TLSA records may count, in order (RFC 7672 2.2.2).

    Behind an alias that is validated to its end it is the last name, then the first; where only the first
    step is validated, the first name.
    """
    if host.secure:
        return tuple(dict.fromkeys((host.canonical or host.name, host.name)))
    if host.canonical in ("", host.name):
        return ()
    try:
        alias = await resolver.lookup(host.name, "CNAME")
    except (NoSuchDomain, NoRecords):
        return ()
    return (host.name,) if alias.authenticated else ()


def _usable(records: Iterable[Any]) -> Iterable[TLSARecord]:
    for record in records:
        found = TLSARecord(record.usage, record.selector, record.mtype, bytes(record.cert))
        if is_usable(found):
            yield found


def is_usable(record: TLSARecord) -> bool:
    """Whether a record can verify a certificate of SMTP; one that has it whole must be readable, too."""
    return record.usable and (record.matching != EXACT or _is_whole(record))


def _is_whole(record: TLSARecord) -> bool:
    try:
        if record.selector == CERTIFICATE:
            x509.load_der_x509_certificate(record.data)
        else:
            load_der_public_key(record.data)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
