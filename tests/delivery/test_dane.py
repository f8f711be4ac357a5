"""Which TLSA records count, against a real DNS server."""

from __future__ import annotations

from random import Random

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relaymail.delivery.addresses import OwnHost
from relaymail.delivery.dane import HostRecords, TLSAFailed, is_usable, tlsa_records
from relaymail.delivery.route import Relay, Route, Router
from relaymail.dns import Resolver
from relaymail.smtp.client_dane import TLSARecord
from tests.conftest import reactor
from tests.smtp_tls.conftest import issue
from tests.support.dns_server import DNSServer, Zones

DIGEST = "ab" * 32
EE = TLSARecord(3, 1, 1, bytes.fromhex(DIGEST))


@pytest.fixture
def signed(zones: Zones) -> Zones:
    """A signed domain with a signed host that has TLSA records."""
    zones.signed.add("test")
    zones.mx("example.test", "10 mx.test", signed=True)
    zones.a("mx.test", "192.0.2.1", signed=True)
    zones.set("_25._tcp.mx.test", "TLSA", f"3 1 1 {DIGEST}", signed=True)
    return zones


async def find(resolver: Resolver, domain: str = "example.test", port: int = 25) -> HostRecords | None:
    route = await route_to(resolver, domain, port)
    return await tlsa_records(resolver, route, route.hosts[0])


async def route_to(resolver: Resolver, domain: str = "example.test", port: int = 25) -> Route:
    router = Router(resolver, own=OwnHost(), port=port, random=Random(1), reachable=lambda address: True)
    return await router.route(domain)


async def test_signed_records_of_a_signed_host_count(signed: Zones, resolver: Resolver) -> None:
    assert await find(resolver) == HostRecords("mx.test", (EE,), ("mx.test", "example.test"))


async def test_the_port_is_in_the_name(signed: Zones, resolver: Resolver) -> None:
    assert await find(resolver, port=2525) is None
    signed.set("_2525._tcp.mx.test", "TLSA", f"3 1 1 {DIGEST}", signed=True)
    assert await find(resolver, port=2525) is not None


@pytest.mark.parametrize("name", ["example.test", "mx.test", "_25._tcp.mx.test"])
async def test_all_of_the_way_must_be_signed(signed: Zones, resolver: Resolver, name: str) -> None:
    for (known, _), entry in signed.entries.items():
        if known == name:
            entry.signed = False
    assert await find(resolver) is None


async def test_an_untrusted_servers_records_do_not_count(signed: Zones, dns_server: DNSServer) -> None:
    assert await find(Resolver([dns_server.address], reactor=reactor, timeout=30, trusted=())) is None


async def test_a_host_without_records_has_no_dane(signed: Zones, resolver: Resolver) -> None:
    signed.set("_25._tcp.mx.test", "TLSA")
    assert await find(resolver) is None
    signed.forget("_25._tcp.mx.test")
    assert await find(resolver) is None


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP"])
async def test_records_that_cannot_be_looked_up_are_not_taken_for_absent(
    signed: Zones, resolver: Resolver, rcode: str
) -> None:
    signed.fail("_25._tcp.mx.test", "TLSA", rcode)
    with pytest.raises(TLSAFailed):
        await find(resolver)


async def test_silence_is_not_taken_for_absence(signed: Zones, impatient: Resolver) -> None:
    signed.silence("_25._tcp.mx.test", "TLSA")
    with pytest.raises(TLSAFailed, match="timeout"):
        await find(impatient)


async def test_an_unsigned_host_is_not_asked_for_records(
    signed: Zones, dns_server: DNSServer, resolver: Resolver
) -> None:
    """Servers of unsigned zones often fail on types they do not know (RFC 7672 2.1.3)."""
    signed.a("mx.test", "192.0.2.1", signed=False)
    signed.fail("_25._tcp.mx.test", "TLSA")
    assert await find(resolver) is None
    assert dns_server.asked("_25._tcp.mx.test", "TLSA") == 0


async def test_one_signed_family_is_enough_to_be_protected(signed: Zones, resolver: Resolver) -> None:
    signed.fail("mx.test", "AAAA")
    assert await find(resolver) is not None


async def test_a_signed_domain_without_mx_is_its_own_host(signed: Zones, resolver: Resolver) -> None:
    signed.a("own.test", "192.0.2.1", signed=True)
    signed.set("_25._tcp.own.test", "TLSA", f"3 1 1 {DIGEST}", signed=True)
    assert await find(resolver, "own.test") == HostRecords("own.test", (EE,), ("own.test",))


async def test_an_alias_of_the_records_themselves_is_followed(signed: Zones, resolver: Resolver) -> None:
    signed.forget("_25._tcp.mx.test")
    signed.cname("_25._tcp.mx.test", "records.test", signed=True)
    signed.set("records.test", "TLSA", f"3 1 1 {DIGEST}", signed=True)
    assert await find(resolver) == HostRecords("mx.test", (EE,), ("mx.test", "example.test"))
    signed.cname("_25._tcp.mx.test", "records.test", signed=False)
    assert await find(resolver) is None


# RFC 7672 2.2.2: hosts that are aliases


@pytest.fixture
def alias(signed: Zones) -> Zones:
    """The host is an alias of end.test, all signed, both with records."""
    signed.forget("mx.test")
    signed.cname("mx.test", "end.test", signed=True)
    signed.a("end.test", "192.0.2.1", signed=True)
    signed.set("_25._tcp.end.test", "TLSA", f"2 0 1 {DIGEST}", signed=True)
    return signed


async def test_records_of_the_name_behind_an_alias_come_first(alias: Zones, resolver: Resolver) -> None:
    found = await find(resolver)
    assert found is not None
    assert (found.base, found.names) == ("end.test", ("end.test", "mx.test", "example.test"))
    assert found.records[0].usage == 2


async def test_without_them_those_of_the_alias_count(alias: Zones, resolver: Resolver) -> None:
    alias.forget("_25._tcp.end.test")
    found = await find(resolver)
    assert found is not None
    assert found.base == "mx.test"


async def test_of_a_signed_alias_to_an_unsigned_host_those_of_the_alias_count(
    alias: Zones, dns_server: DNSServer, resolver: Resolver
) -> None:
    alias.a("end.test", "192.0.2.1", signed=False)
    found = await find(resolver)
    assert found is not None
    assert found.base == "mx.test"
    assert dns_server.asked("_25._tcp.end.test", "TLSA") == 0


async def test_an_unsigned_alias_has_no_dane(alias: Zones, resolver: Resolver) -> None:
    alias.cname("mx.test", "end.test", signed=False)
    assert await find(resolver) is None


async def test_an_alias_that_cannot_be_looked_up_is_not_taken_for_unsigned(
    alias: Zones, resolver: Resolver
) -> None:
    alias.a("end.test", "192.0.2.1", signed=False)
    route = await route_to(resolver)
    alias.fail("mx.test", "CNAME")
    with pytest.raises(TLSAFailed):
        await tlsa_records(resolver, route, route.hosts[0])


async def test_an_address_literal_has_no_dane(signed: Zones, resolver: Resolver) -> None:
    route = await Router(resolver, own=OwnHost()).route("[192.0.2.1]")
    assert await tlsa_records(resolver, route, route.hosts[0]) is None


async def test_the_name_of_a_relay_need_not_be_proven(signed: Zones, resolver: Resolver) -> None:
    route = await Router(resolver, own=OwnHost()).route("other.example", Relay("mx.test", 25))
    found = await tlsa_records(resolver, route, route.hosts[0])
    assert found == HostRecords("mx.test", (EE,), ("mx.test",))


# Usable records


async def test_only_usable_records_are_kept_and_without_any_encryption_is_left(
    signed: Zones, resolver: Resolver
) -> None:
    useless = ["0 0 1 " + DIGEST, "1 1 1 " + DIGEST, "3 2 1 " + DIGEST, "3 1 9 " + DIGEST, "3 0 0 3000"]
    signed.set("_25._tcp.mx.test", "TLSA", *useless, f"3 1 1 {DIGEST}", signed=True)
    found = await find(resolver)
    assert found is not None
    assert found.records == (EE,)
    signed.set("_25._tcp.mx.test", "TLSA", *useless, signed=True)
    found = await find(resolver)
    assert found is not None
    assert found.records == ()


def test_whole_certificates_and_keys_are_usable_if_they_are_some() -> None:
    issued = issue("mx.test")
    certificate = issued.der
    key = issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert is_usable(TLSARecord(3, 0, 0, certificate))
    assert is_usable(TLSARecord(2, 1, 0, key))
    assert not is_usable(TLSARecord(3, 1, 0, certificate))
    assert not is_usable(TLSARecord(3, 0, 0, key))
    assert not is_usable(TLSARecord(3, 0, 0, b""))


@pytest.mark.parametrize(("matching", "octets"), [(1, 32), (2, 64)])
def test_digests_have_their_length(matching: int, octets: int) -> None:
    assert is_usable(TLSARecord(3, 1, matching, b"x" * octets))
    assert not is_usable(TLSARecord(3, 1, matching, b"x" * (octets - 1)))
    assert not is_usable(TLSARecord(3, 1, matching, b""))
