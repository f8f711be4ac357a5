"""What a DNS lookup can come to. Whoever routes mail must never take one of these for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import dns.rdata

FailureKind = Literal["timeout", "servfail", "refused", "network"]
"""``timeout``: no usable answer in time. ``servfail``: SERVFAIL or any other error code. ``refused``:
REFUSED. ``network``: no server could be reached, or what answered did not speak DNS."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one name and type, CNAMEs followed."""

    records: tuple[dns.rdata.Rdata, ...]
    """Never empty."""
    authenticated: bool
    """The AD bit (RFC 4035 3.2.3), set by a server whose word counts; otherwise false."""
    ttl: int
    """Seconds the records may be kept; of a cached answer, as they were when it came."""
    canonical: str = ""
    """Whose records they are, behind all CNAMEs: lower case, without the last dot."""


@dataclass(frozen=True, slots=True, order=True)
class MX:
    """One mail exchanger (RFC 5321 5.1)."""

    preference: int
    """0 to 65535; lower is tried first."""
    host: str
    """Lower case, without the last dot; ``.`` alone is a null MX: the domain takes no mail (RFC 7505)."""

    @property
    def is_null(self) -> bool:
        """Whether this says that the domain takes no mail (RFC 7505)."""
        return self.host == "."


class DNSError(Exception):
    """A lookup gave no records."""

    def __init__(self, name: str, rdtype: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.rdtype = rdtype


class NoSuchDomain(DNSError):
    """The name does not exist (NXDOMAIN, RFC 2308 2.1), or is none that could."""

    def __init__(self, name: str, rdtype: str, *, authenticated: bool = False) -> None:
        super().__init__(name, rdtype, f"{name} does not exist")
        self.authenticated = authenticated


class NoRecords(DNSError):
    """The name exists, but has no records of the type (NODATA, RFC 2308 2.2)."""

    def __init__(self, name: str, rdtype: str, *, authenticated: bool = False) -> None:
        super().__init__(name, rdtype, f"{name} has no {rdtype} records")
        self.authenticated = authenticated


class DNSFailure(DNSError):
    """DNS itself failed: nothing is known about the name."""

    def __init__(self, name: str, rdtype: str, kind: FailureKind) -> None:
        super().__init__(name, rdtype, f"looking up {rdtype} of {name} failed: {kind}")
        self.kind: FailureKind = kind
