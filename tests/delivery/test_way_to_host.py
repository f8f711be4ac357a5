"""From a domain to a host under TLS: DNS, route, policy and the handshake together, all of it real."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from relaymail.delivery.addresses import OwnHost
from relaymail.delivery.mta_sts import MTASTS
from relaymail.delivery.mta_sts_policy import Policy
from relaymail.delivery.route import Router
from relaymail.delivery.tls_policy import HostRefused, TLSPolicies
from relaymail.dns import Resolver
from relaymail.smtp.client import ClientConnection, ConnectFailed, connect
from relaymail.smtp.client_tls import TrustRoots
from tests.conftest import reactor
from tests.smtp_tls.conftest import Authority, Issued
from tests.support.dns_server import Zones
from tests.support.rude_host import RudeHost, ServerSide, new_authority, polite, tls_of

AUTHORITY: Authority = new_authority()
ROOTS = TrustRoots([AUTHORITY.root.certificate])


class Enforced:
    """An enforced policy that names ``*.test``."""

    async def policy(self, domain: str) -> Policy | None:
        return Policy("enforce", 1000, ("*.test",))


def spki_digest(issued: Issued) -> str:
    key = issued.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


@pytest.fixture
def reach(zones: Zones, resolver: Resolver) -> Callable[..., Any]:
    """Connects to the first host of example.test, which is mx.test, as its policy asks."""
    zones.signed.add("test")
    zones.mx("example.test", "10 mx.test", signed=True)
    zones.a("mx.test", "127.0.0.1", signed=True)

    async def reacher(
        host: RudeHost, *, records: tuple[str, ...] = (), mta_sts: Any = None, require_tls: bool = False
    ) -> ClientConnection:
        zones.set(f"_{host.port}._tcp.mx.test", "TLSA", *records, signed=True)
        route = await Router(resolver, own=OwnHost(), port=host.port).route("example.test")
        [next_host] = route.hosts
        policies = TLSPolicies(resolver, mta_sts=cast("MTASTS | None", mta_sts), roots=ROOTS)
        policy = await policies.for_host(route, next_host, require_tls=require_tls)
        return await connect(
            reactor,
            next_host.addresses[0],
            next_host.port,
            host=policy.server_name,
            helo="relay.example.org",
            tls=policy.requirement,
        )

    return reacher


def serving(tls: ServerSide | None) -> RudeHost:
    return RudeHost(reactor, partial(polite, tls=tls))


async def verified_by(reaching: Any) -> str | None:
    connection: ClientConnection = await reaching
    facts = connection.tls
    connection.quit()
    return None if facts is None else facts.verified_by


async def refused(reaching: Any) -> bool:
    """Whether the connection failed for its TLS."""
    with pytest.raises(ConnectFailed) as caught:
        await reaching
    return caught.value.tls_failed


async def test_without_a_policy_any_certificate_will_do_and_none(reach: Callable[..., Any]) -> None:
    async with serving(tls_of(AUTHORITY, "other.test")) as host:
        assert await verified_by(reach(host)) == "nothing"
    async with serving(None) as host:
        assert await verified_by(reach(host)) is None


async def test_dane_takes_the_certificate_of_its_records_and_no_other(reach: Callable[..., Any]) -> None:
    issued, other = AUTHORITY.issue("whatever.test"), AUTHORITY.issue("mx.test")
    tls = ServerSide(issued, AUTHORITY.intermediate)
    async with serving(tls) as host:
        assert await verified_by(reach(host, records=(f"3 1 1 {spki_digest(issued)}",))) == "dane-ee"
        assert tls.server_names == ["mx.test"]
        assert await refused(reach(host, records=(f"3 1 1 {spki_digest(other)}",)))
        assert await verified_by(reach(host, records=(f"1 1 1 {spki_digest(other)}",))) == "nothing"


@pytest.mark.parametrize(("name", "good"), [("mx.test", True), ("example.test", True), ("other.test", False)])
async def test_dane_under_an_authority_wants_a_name_of_the_way(
    reach: Callable[..., Any], name: str, good: bool
) -> None:
    records = (f"2 1 1 {spki_digest(AUTHORITY.intermediate)}",)
    async with serving(tls_of(AUTHORITY, name)) as host:
        if good:
            assert await verified_by(reach(host, records=records)) == "dane-ta"
        else:
            assert await refused(reach(host, records=records))


async def test_under_dane_nothing_goes_out_in_clear(reach: Callable[..., Any]) -> None:
    async with serving(None) as host:
        assert await refused(reach(host, records=("3 1 1 " + "ab" * 32,)))
        assert await refused(reach(host, records=("1 1 1 " + "ab" * 32,)))


async def test_mta_sts_wants_a_certificate_for_the_host(reach: Callable[..., Any]) -> None:
    async with serving(tls_of(AUTHORITY, "mx.test")) as host:
        assert await verified_by(reach(host, mta_sts=Enforced())) == "roots"
    async with serving(tls_of(AUTHORITY, "example.test")) as host:
        assert await refused(reach(host, mta_sts=Enforced()))
    async with serving(tls_of(new_authority(), "mx.test")) as host:
        assert await refused(reach(host, mta_sts=Enforced()))
    async with serving(None) as host:
        assert await refused(reach(host, mta_sts=Enforced()))


async def test_requiretls_is_met_by_a_certificate_for_a_signed_host(
    reach: Callable[..., Any], zones: Zones
) -> None:
    async with serving(tls_of(AUTHORITY, "mx.test")) as host:
        assert await verified_by(reach(host, require_tls=True)) == "roots"
        zones.mx("example.test", "10 mx.test", signed=False)
        with pytest.raises(HostRefused):
            await reach(host, require_tls=True)
