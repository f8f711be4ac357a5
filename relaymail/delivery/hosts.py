"""One host's addresses: A and AAAA together, and what it means when some or all of it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from twisted.internet.defer import Deferred, gatherResults

from relaymail.delivery.addresses import usable
from relaymail.dns import Answer, DNSFailure, NoRecords, NoSuchDomain, Resolver

Lack = Literal["none", "nonexistent", "unusable", "unknown"]
"""Why there are no addresses: the name has none; there is no such name; those it has are the addresses of no
host; DNS failed."""

_TYPES: Final = ("AAAA", "A")


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """What DNS says of one host's addresses."""

    name: str
    addresses: tuple[str, ...] = ()
    secure: bool = False
    """Whether they were validated (DNSSEC)."""
    canonical: str = ""
    """The name behind the aliases of ``name``."""
    lack: Lack | None = None
    """Why ``addresses`` is empty; ``None``: it is not."""

    @property
    def temporary(self) -> bool:
        """Whether there may be addresses another time."""
        return self.lack == "unknown"

    @property
    def why(self) -> str:
        """What is wrong with the host, as a sentence."""
        return {
            "none": f"{self.name} has no address",
            "nonexistent": f"{self.name} does not exist",
            "unusable": f"{self.name} has no address of a host",
            "unknown": f"the addresses of {self.name} could not be looked up",
            None: "",
        }[self.lack]


async def addresses_of(resolver: Resolver, name: str) -> HostAddresses:
    """Look up the IPv6 and IPv4 addresses of ``name``. Raises nothing of DNS: see the result's ``lack``.

    One family that fails is not waited for if the other has addresses: a server that breaks on AAAA is a
    common one. The host counts as validated when either answer was: forged answers cannot be mixed into a
    signed zone, but a family can be kept from us (RFC 7672 2.1.2).
    """
    asked = [Deferred.fromCoroutine(_ask(resolver, name, rdtype)) for rdtype in _TYPES]
    found = await gatherResults(asked, consumeErrors=True)
    answers = [outcome for outcome in found if isinstance(outcome, Answer)]
    texts = [record.address for answer in answers for record in _records(answer)]
    addresses = tuple(dict.fromkeys(address for text in texts if (address := usable(text)) is not None))
    if not addresses:
        return HostAddresses(name, lack=_lack(found, bool(texts)))
    return HostAddresses(
        name,
        addresses,
        secure=any(answer.authenticated for answer in answers),
        canonical=next(
            (answer.canonical for answer in answers if answer.authenticated), answers[0].canonical
        ),
    )


async def _ask(resolver: Resolver, name: str, rdtype: str) -> Answer | Lack:
    try:
        return await resolver.lookup(name, rdtype)
    except NoSuchDomain:
        return "nonexistent"
    except NoRecords:
        return "none"
    except DNSFailure:
        return "unknown"


def _records(answer: Answer) -> tuple[Any, ...]:
    return answer.records


def _lack(found: list[Answer | Lack], unusable: bool) -> Lack:
    if "unknown" in found:
        return "unknown"
    if unusable:
        return "unusable"
    return "nonexistent" if "nonexistent" in found else "none"
