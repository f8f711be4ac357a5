"""The TLS that next hosts must have, from what DNS, policies and settings say of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest
from twisted.logger import LogEvent, globalLogPublisher

from relaymail.delivery.addresses import OwnHost
from relaymail.delivery.mta_sts import MTASTS
from relaymail.delivery.mta_sts_policy import Policy, parse_policy
from relaymail.delivery.route import Relay, Router
from relaymail.delivery.tls_policy import HostPolicy, HostRefused, Override, TLSPolicies
from relaymail.dns import Resolver
from relaymail.smtp.client_dane import TLSARecord
from relaymail.smtp.client_tls import TLSMode, TLSRequirement, TrustRoots
from tests.smtp_tls.conftest import issue
from tests.support.dns_server import Zones

ROOTS = TrustRoots([issue("Root", authority=True).certificate])
DIGEST = "ab" * 32
EE = TLSARecord(3, 1, 1, bytes.fromhex(DIGEST))


class Policies:
    """MTA-STS policies by domain."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.asked: list[str] = []

    def set(self, domain: str, mode: str, *mx: str) -> None:
        named = "".join(f"mx: {pattern}\n" for pattern in mx)
        self.texts[domain] = f"version: STSv1\nmode: {mode}\nmax_age: 1000\n{named}"

    async def policy(self, domain: str) -> Policy | None:
        self.asked.append(domain)
        return parse_policy(self.texts[domain]) if domain in self.texts else None


@pytest.fixture
def sts() -> Policies:
    return Policies()


@pytest.fixture
def counted() -> list[str]:
    return []


Ask = Callable[..., Any]


@pytest.fixture
def ask(zones: Zones, resolver: Resolver, sts: Policies, counted: list[str]) -> Ask:
    """Asks for the policy of the first host of a domain; ``example.test`` has mx.test, unsigned."""
    zones.signed.add("test")
    zones.mx("example.test", "10 mx.test")
    zones.a("mx.test", "192.0.2.1")

    async def asker(
        domain: str = "example.test",
        *,
        relay: Relay | None = None,
        relay_use_tls: bool = True,
        require_tls: bool = False,
        override: Override | None = None,
        port: int = 25,
    ) -> HostPolicy:
        router = Router(
            resolver, own=OwnHost(), port=port, relay=relay, random=Random(1), reachable=lambda address: True
        )
        route = await router.route(domain, override.relay if override else None)
        policies = TLSPolicies(
            resolver,
            mta_sts=cast(MTASTS, sts),
            roots=ROOTS,
            relay_use_tls=relay_use_tls,
            count=counted.append,
        )
        return await policies.for_host(route, route.hosts[0], require_tls=require_tls, override=override)

    return asker


def sign(zones: Zones, *records: str) -> None:
    """Sign everything of example.test; ``records`` are its host's TLSA records."""
    for entry in zones.entries.values():
        entry.signed = True
    zones.set("_25._tcp.mx.test", "TLSA", *records, signed=True)


def verified(*names: str) -> TLSRequirement:
    return TLSRequirement.verified(names, ROOTS)


async def test_without_anything_tls_is_opportunistic(ask: Ask, counted: list[str]) -> None:
    found = await ask()
    assert (found.source, found.requirement, found.server_name) == (
        "opportunistic",
        TLSRequirement.opportunistic(),
        "mx.test",
    )
    assert counted == ["opportunistic"]


async def test_a_literal_is_opportunistic_and_named_by_its_address(ask: Ask, sts: Policies) -> None:
    found = await ask("[IPv6:2001:db8::1]")
    assert (found.source, found.server_name) == ("opportunistic", "2001:db8::1")
    assert sts.asked == []


# MTA-STS


async def test_an_enforced_policy_asks_for_verified_tls(ask: Ask, sts: Policies, counted: list[str]) -> None:
    sts.set("example.test", "enforce", "*.test")
    assert await ask() == HostPolicy(
        "mta-sts", verified("mx.test"), "mx.test", "the MTA-STS policy of example.test"
    )
    assert counted == ["mta-sts"]


async def test_a_host_that_an_enforced_policy_does_not_name_gets_no_mail(ask: Ask, sts: Policies) -> None:
    sts.set("example.test", "enforce", "other.test")
    with pytest.raises(HostRefused, match=r"does not name its MX mx\.test") as caught:
        await ask()
    assert (caught.value.code, caught.value.status, caught.value.permanent) == (451, "4.7.0", False)


async def test_a_domain_without_mx_must_be_named_itself(ask: Ask, zones: Zones, sts: Policies) -> None:
    zones.a("own.test", "192.0.2.1")
    sts.set("own.test", "enforce", "*.own.test")
    with pytest.raises(HostRefused):
        await ask("own.test")
    sts.set("own.test", "enforce", "own.test")
    assert (await ask("own.test")).requirement == verified("own.test")


async def test_a_policy_that_is_being_tested_is_logged_and_counted(
    ask: Ask, sts: Policies, counted: list[str]
) -> None:
    logged: list[LogEvent] = []
    publisher: Any = globalLogPublisher
    publisher.addObserver(logged.append)
    try:
        sts.set("example.test", "testing", "other.test")
        assert (await ask()).requirement == TLSRequirement.opportunistic()
        assert counted == ["testing", "opportunistic"]
        assert [event["host"] for event in logged if event["log_namespace"].endswith("tls_policy")] == [
            "mx.test"
        ]
        sts.set("example.test", "testing", "mx.test")
        assert (await ask()).requirement == TLSRequirement.opportunistic()
        assert counted == ["testing", "opportunistic", "opportunistic"]
    finally:
        publisher.removeObserver(logged.append)


# DANE


async def test_dane_comes_before_mta_sts(ask: Ask, zones: Zones, sts: Policies, counted: list[str]) -> None:
    sign(zones, f"3 1 1 {DIGEST}")
    sts.set("example.test", "enforce", "other.test")
    assert await ask() == HostPolicy(
        "dane", TLSRequirement.dane([EE], ("mx.test", "example.test")), "mx.test", "TLSA records of mx.test"
    )
    assert (counted, sts.asked) == (["dane"], [])


async def test_the_host_is_asked_for_the_name_its_records_belong_to(ask: Ask, zones: Zones) -> None:
    zones.forget("mx.test")
    zones.cname("mx.test", "end.test")
    zones.a("end.test", "192.0.2.1")
    sign(zones)
    zones.set("_25._tcp.end.test", "TLSA", f"3 1 1 {DIGEST}", signed=True)
    found = await ask()
    assert (found.server_name, found.requirement.names) == (
        "end.test",
        ("end.test", "mx.test", "example.test"),
    )


async def test_a_host_whose_records_cannot_be_looked_up_gets_no_mail_now(ask: Ask, zones: Zones) -> None:
    sign(zones)
    zones.fail("_25._tcp.mx.test", "TLSA")
    with pytest.raises(HostRefused) as caught:
        await ask()
    assert (caught.value.code, caught.value.status) == (451, "4.4.3")


async def test_with_useless_records_only_encryption_is_a_must(ask: Ask, zones: Zones) -> None:
    sign(zones, f"1 1 1 {DIGEST}")
    found = await ask()
    assert (found.source, found.requirement) == ("dane", TLSRequirement.encrypted())


async def test_a_policy_verifies_what_useless_records_cannot(ask: Ask, zones: Zones, sts: Policies) -> None:
    sign(zones, f"1 1 1 {DIGEST}")
    sts.set("example.test", "enforce", "mx.test")
    found = await ask()
    assert (found.source, found.requirement) == ("mta-sts", verified("mx.test"))


async def test_unsigned_exchangers_have_no_dane_but_mta_sts(ask: Ask, zones: Zones, sts: Policies) -> None:
    sign(zones, f"3 1 1 {DIGEST}")
    zones.mx("example.test", "10 mx.test", signed=False)
    sts.set("example.test", "enforce", "mx.test")
    assert (await ask()).source == "mta-sts"


# What the operator has set


@pytest.mark.parametrize(
    ("tls", "requirement"),
    [
        ("none", TLSRequirement.none()),
        ("opportunistic", TLSRequirement.opportunistic()),
        ("encrypted", TLSRequirement.encrypted()),
        ("verified", verified("mx.test")),
        ("implicit", verified("mx.test").implicitly()),
    ],
)
async def test_what_is_set_for_a_destination_comes_first(
    ask: Ask, zones: Zones, sts: Policies, tls: Any, requirement: TLSRequirement
) -> None:
    sign(zones, f"3 1 1 {DIGEST}")
    zones.fail("_25._tcp.mx.test", "TLSA")
    sts.set("example.test", "enforce", "other.test")
    found = await ask(override=Override(tls=tls))
    assert (found.source, found.requirement) == ("override", requirement)
    assert tls in found.why


async def test_dane_that_is_set_is_a_must(ask: Ask, zones: Zones, sts: Policies) -> None:
    sts.set("example.test", "enforce", "mx.test")
    for records in ([], [f"1 1 1 {DIGEST}"]):
        sign(zones, *records)
        refused = await refusal(ask(override=Override("dane")))
        assert (refused.code, refused.status) == (451, "4.7.0")
    sign(zones, f"3 1 1 {DIGEST}")
    found = await ask(override=Override("dane"))
    assert (found.source, found.requirement) == (
        "override",
        TLSRequirement.dane([EE], ("mx.test", "example.test")),
    )
    zones.fail("_25._tcp.mx.test", "TLSA")
    assert (await refusal(ask(override=Override("dane")))).status == "4.4.3"


async def test_a_relay_may_have_dane_too(ask: Ask, zones: Zones) -> None:
    zones.a("special.test", "192.0.2.1", signed=True)
    zones.set("_26._tcp.special.test", "TLSA", f"3 1 1 {DIGEST}", signed=True)
    found = await ask(override=Override("dane", Relay("special.test", 26)))
    assert (found.source, found.requirement) == ("relay", TLSRequirement.dane([EE], ("special.test",)))


# Relays


@pytest.fixture
def smart(zones: Zones) -> str:
    zones.a("smart.test", "192.0.2.1")
    return "smart.test"


async def test_a_smarthost_has_verified_tls(ask: Ask, smart: str, sts: Policies) -> None:
    found = await ask(relay=Relay(smart, 587))
    assert (found.source, found.requirement, found.server_name) == ("relay", verified(smart), smart)
    assert sts.asked == []


async def test_a_smarthost_on_465_has_tls_from_the_first_octet(ask: Ask, smart: str) -> None:
    assert (await ask(relay=Relay(smart, 465))).requirement == verified(smart).implicitly()


@pytest.mark.parametrize("port", [25, 465, 587])
async def test_a_smarthost_without_tls_gets_mail_in_clear(ask: Ask, smart: str, port: int) -> None:
    found = await ask(relay=Relay(smart, port), relay_use_tls=False)
    assert found.requirement == TLSRequirement.none()


async def test_a_smarthost_that_is_an_address_is_verified_by_it(ask: Ask) -> None:
    found = await ask(relay=Relay("192.0.2.1", 587))
    assert (found.requirement, found.server_name) == (verified("192.0.2.1"), "192.0.2.1")


async def test_the_relay_of_a_destination_has_the_tls_that_is_set_with_it(ask: Ask, zones: Zones) -> None:
    zones.a("special.test", "192.0.2.1")
    relay = Relay("special.test", 587)
    found = await ask(override=Override(relay=relay), relay_use_tls=False)
    assert found.requirement == verified("special.test"), "the smarthost's setting is not its own"
    found = await ask(override=Override("none", relay))
    assert (found.source, found.requirement) == ("relay", TLSRequirement.none())
    found = await ask(override=Override("encrypted", Relay("special.test", 465)))
    assert found.requirement == TLSRequirement.encrypted().implicitly()


# REQUIRETLS (RFC 8689)


async def refusal(asking: Any) -> HostRefused:
    with pytest.raises(HostRefused) as caught:
        await asking
    return caught.value


async def test_requiretls_asks_for_a_host_that_dnssec_or_mta_sts_vouches_for(
    ask: Ask, zones: Zones, sts: Policies
) -> None:
    refused = await refusal(ask(require_tls=True))
    assert (refused.code, refused.status, refused.permanent) == (550, "5.7.30", True)
    sts.set("example.test", "testing", "other.test")
    assert (await refusal(ask(require_tls=True))).status == "5.7.30"
    sts.set("example.test", "testing", "mx.test")
    found = await ask(require_tls=True)
    assert (found.source, found.requirement) == ("requiretls", verified("mx.test"))
    sts.set("example.test", "enforce", "mx.test")
    assert (await ask(require_tls=True)).source == "mta-sts"
    sts.texts.clear()
    sign(zones)
    found = await ask(require_tls=True)
    assert (found.source, found.requirement) == ("requiretls", verified("mx.test"))


async def test_requiretls_is_content_with_dane(ask: Ask, zones: Zones) -> None:
    sign(zones, f"3 1 1 {DIGEST}")
    assert (await ask(require_tls=True)).requirement.mode is TLSMode.DANE
    sign(zones, f"1 1 1 {DIGEST}")
    assert (await ask(require_tls=True)).requirement == verified("mx.test"), "encryption alone is not enough"


async def test_requiretls_trusts_a_host_of_the_domains_own_name(ask: Ask, zones: Zones) -> None:
    zones.a("own.test", "192.0.2.1")
    zones.mx("own.test", "10 own.test")
    assert (await ask("own.test", require_tls=True)).requirement == verified("own.test")


async def test_requiretls_goes_to_an_address_literal_with_a_certificate_for_it(ask: Ask) -> None:
    assert (await ask("[192.0.2.1]", require_tls=True)).requirement == verified("192.0.2.1")


@pytest.mark.parametrize("port", [587, 465])
async def test_requiretls_is_never_sent_to_a_smarthost_in_clear(ask: Ask, smart: str, port: int) -> None:
    found = await ask(relay=Relay(smart, port), relay_use_tls=False, require_tls=True)
    expected = verified(smart)
    assert found.requirement == (expected.implicitly() if port == 465 else expected)
    assert found.source == "relay", "it is logged in to as ever"


@pytest.mark.parametrize("tls", ["none", "opportunistic", "encrypted"])
async def test_requiretls_comes_before_what_is_set_for_a_destination(
    ask: Ask, zones: Zones, tls: Any
) -> None:
    sign(zones)
    found = await ask(override=Override(tls), require_tls=True)
    assert (found.source, found.requirement) == ("requiretls", verified("mx.test"))
