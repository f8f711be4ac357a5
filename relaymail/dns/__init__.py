"""DNS lookups on the reactor: :class:`~relaymail.dns.resolver.Resolver` and its outcomes."""

from relaymail.dns.outcome import MX, Answer, DNSError, DNSFailure, FailureKind, NoRecords, NoSuchDomain
from relaymail.dns.resolver import Resolver, exchangers
from relaymail.dns.servers import parse_server

__all__ = [
    "MX",
    "Answer",
    "DNSError",
    "DNSFailure",
    "FailureKind",
    "NoRecords",
    "NoSuchDomain",
    "Resolver",
    "exchangers",
    "parse_server",
]
