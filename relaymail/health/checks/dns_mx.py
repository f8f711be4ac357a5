"""Check of DNS: can mail be routed."""

from __future__ import annotations

from relaymail.dns import DNSFailure, NoRecords, NoSuchDomain, Resolver
from relaymail.health.result import HealthCheck, Result, Status

LIMIT = 4.5
"""Seconds for the lookup: less than the check has, so that it can say what failed."""
SHARED = 5.0
"""Seconds for which a result is given to others: many who ask for health must not become many queries."""
SHOWN = 3

_FAILURES = {
    "timeout": "timed out",
    "servfail": "SERVFAIL",
    "refused": "REFUSED",
    "network": "no DNS server can be reached",
}


def dns_mx_check(resolver: Resolver, domain: str) -> HealthCheck:
    """Asks for the MX records of ``domain``, past the cache."""

    async def run() -> Result:
        try:
            exchangers = await resolver.mx(domain, fresh=True, limit=LIMIT)
        except NoSuchDomain:
            return _without_records(domain, f"DNS works, but {domain} does not exist")
        except NoRecords:
            return _without_records(domain, f"DNS works, but {domain} has no MX records")
        except DNSFailure as failure:
            return Result(Status.UNHEALTHY, f"DNS MX resolution failed ({domain}: {_FAILURES[failure.kind]})")
        top = ", ".join(exchanger.host for exchanger in exchangers[:SHOWN])
        return Result(
            Status.HEALTHY,
            f"DNS MX resolution working ({domain} -> {top})",
            {"testDomain": domain, "mxRecordCount": len(exchangers)},
        )

    return HealthCheck("dns-mx", ("smtp",), run, shared=SHARED)


def _without_records(domain: str, description: str) -> Result:
    return Result(Status.DEGRADED, description, {"testDomain": domain, "mxRecordCount": 0})
