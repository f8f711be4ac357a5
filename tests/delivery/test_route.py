"""Which hosts a domain's mail goes to, against a real DNS server on loopback."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from relaymail.delivery.addresses import OwnHost
from relaymail.delivery.route import MOST_ADDRESSES, NextHost, Relay, Route, RouteFailed, Router
from relaymail.dns import Resolver
from tests.conftest import reactor
from tests.support.dns_server import DNSServer, Entry, Zones

OURS = "mail.ours.test"


def router(resolver: Resolver, **options: Any) -> Router:
    """A router that takes every address for one there is a way to."""
    options = {"own": OwnHost([OURS]), "reachable": lambda address: True, "random": Random(1), **options}
    return Router(resolver, **options)


def names(route: Route) -> list[str]:
    return [host.name for host in route.hosts]


def addresses(route: Route) -> list[str]:
    return [address for host in route.hosts for address in host.addresses]


async def failure(router: Router, destination: str) -> RouteFailed:
    with pytest.raises(RouteFailed) as caught:
        await router.route(destination)
    return caught.value


async def test_exchangers_come_by_preference(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", "20 b.example.test", "10 a.example.test")
    zones.a("a.example.test", "192.0.2.1")
    zones.a("b.example.test", "192.0.2.2")
    route = await router(resolver, port=2525).route("Example.TEST.")
    assert route == Route(
        "example.test",
        "mx",
        (
            NextHost("a.example.test", 2525, 10, ("192.0.2.1",), canonical="a.example.test"),
            NextHost("b.example.test", 2525, 20, ("192.0.2.2",), canonical="b.example.test"),
        ),
    )


async def test_hosts_of_one_preference_are_shuffled_and_preferences_are_not_mixed(
    zones: Zones, resolver: Resolver
) -> None:
    zones.mx("example.test", *[f"10 a{n}.test" for n in range(4)], "20 last.test")
    for n in range(4):
        zones.a(f"a{n}.test", f"192.0.2.{n}")
    zones.a("last.test", "192.0.2.9")
    orders = set()
    for seed in range(20):
        found = names(await router(resolver, random=Random(seed)).route("example.test"))
        assert found[-1] == "last.test"
        orders.add(tuple(found))
    assert len(orders) > 5


async def test_addresses_of_one_host_are_shuffled(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", "10 a.test")
    zones.a("a.test", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    found = {
        addresses(await router(resolver, random=Random(seed)).route("example.test"))[0] for seed in range(20)
    }
    assert len(found) == 3


async def test_a_domain_without_exchangers_is_its_own_host(zones: Zones, resolver: Resolver) -> None:
    zones.a("example.test", "192.0.2.1", "2001:db8::1")
    route = await router(resolver).route("example.test")
    assert route.kind == "address"
    assert route.hosts == (
        NextHost("example.test", 25, 0, ("2001:db8::1", "192.0.2.1"), canonical="example.test"),
    )


async def test_a_null_mx_fails_mail_for_good(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test")
    zones.a("example.test", "192.0.2.1")
    failed = await failure(router(resolver), "example.test")
    assert (failed.code, failed.status, failed.permanent) == (556, "5.1.10", True)


async def test_a_null_mx_among_others_is_passed_over(zones: Zones, resolver: Resolver) -> None:
    zones.set("example.test", "MX", "0 .", "10 a.test.")
    zones.a("a.test", "192.0.2.1")
    route = await router(resolver).route("example.test")
    assert names(route) == ["a.test"]
    assert len(route.passed_over) == 1


async def test_a_domain_that_does_not_exist_fails_mail_for_good(resolver: Resolver) -> None:
    failed = await failure(router(resolver), "nowhere.test")
    assert (failed.code, failed.status) == (550, "5.4.4")
    assert failed.why == "nowhere.test does not exist"


async def test_a_domain_without_any_address_fails_mail_for_good(zones: Zones, resolver: Resolver) -> None:
    zones.set("example.test", "TXT", '"hello"')
    failed = await failure(router(resolver), "example.test")
    assert (failed.code, failed.status) == (550, "5.4.4")


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"])
async def test_an_error_code_for_mx_defers_mail_and_addresses_are_not_asked_for(
    zones: Zones, dns_server: DNSServer, resolver: Resolver, rcode: str
) -> None:
    zones.a("example.test", "192.0.2.1")
    zones.fail("example.test", "MX", rcode)
    failed = await failure(router(resolver), "example.test")
    assert (failed.code, failed.status, failed.permanent) == (451, "4.4.3", False)
    assert dns_server.asked("example.test", "A") == 0


async def test_silence_defers_mail(zones: Zones, impatient: Resolver) -> None:
    zones.silence("example.test", "MX")
    failed = await failure(router(impatient), "example.test")
    assert (failed.status, failed.why) == ("4.4.3", "looking up MX of example.test failed: timeout")


@pytest.mark.parametrize("broken", ["A", "AAAA"])
async def test_a_domain_without_mx_whose_addresses_cannot_be_looked_up_defers_mail(
    zones: Zones, resolver: Resolver, broken: str
) -> None:
    zones.a("example.test")
    zones.fail("example.test", broken)
    assert (await failure(router(resolver), "example.test")).status == "4.4.3"


@pytest.mark.parametrize("broken", ["A", "AAAA"])
async def test_one_family_that_fails_does_not_keep_the_other_back(
    zones: Zones, resolver: Resolver, broken: str
) -> None:
    zones.mx("example.test", "10 a.test")
    zones.a("a.test", "192.0.2.1", "2001:db8::1")
    zones.fail("a.test", broken)
    [address] = addresses(await router(resolver).route("example.test"))
    assert (":" in address) == (broken == "A")


async def test_an_alias_of_the_domain_is_followed(zones: Zones, resolver: Resolver) -> None:
    zones.cname("alias.test", "example.test")
    zones.mx("example.test", "10 a.test")
    zones.a("a.test", "192.0.2.1")
    route = await router(resolver).route("alias.test")
    assert (route.destination, names(route)) == ("alias.test", ["a.test"])


async def test_an_exchanger_that_is_an_alias_is_followed(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", "10 a.test")
    zones.cname("a.test", "b.test")
    zones.cname("b.test", "c.test")
    zones.a("c.test", "192.0.2.1")
    [host] = (await router(resolver).route("example.test")).hosts
    assert (host.name, host.canonical, host.addresses) == ("a.test", "c.test", ("192.0.2.1",))


async def test_a_ring_of_aliases_defers_mail(zones: Zones, resolver: Resolver) -> None:
    zones.cname("a.test", "b.test")
    zones.cname("b.test", "a.test")
    assert (await failure(router(resolver), "a.test")).status == "4.4.3"


async def test_a_truncated_answer_is_fetched_whole(
    zones: Zones, dns_server: DNSServer, resolver: Resolver
) -> None:
    zones.set("example.test", "MX", *[f"{n} mx{n}.{'long' * 10}.test." for n in range(300)])
    zones.a(f"mx0.{'long' * 10}.test", "192.0.2.1")
    assert addresses(await router(resolver).route("example.test")) == ["192.0.2.1"]
    assert ("tcp", "example.test", "MX") in dns_server.queries


async def test_a_domain_in_unicode_is_looked_up_in_ascii(zones: Zones, resolver: Resolver) -> None:
    zones.mx("xn--bcher-kva.test", "10 a.test")
    zones.a("a.test", "192.0.2.1")
    assert (await router(resolver).route("Bücher.test")).destination == "xn--bcher-kva.test"


@pytest.mark.parametrize(
    "destination", ["a..b", "x" * 64 + ".test", "192.0.2.1", "\u2001.test", "", "2001:db8::1"]
)
async def test_what_is_no_domain_fails_mail_for_good(
    dns_server: DNSServer, resolver: Resolver, destination: str
) -> None:
    assert (await failure(router(resolver), destination)).permanent
    assert dns_server.queries == []


@pytest.mark.parametrize(
    ("literal", "address"),
    [
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8:0:0::1]", "2001:db8::1"),
        ("[ipv6:2001:db8::1]", "2001:db8::1"),
        ("[IPv6:::ffff:192.0.2.1]", "192.0.2.1"),
    ],
)
async def test_an_address_literal_is_its_own_host(
    dns_server: DNSServer, resolver: Resolver, literal: str, address: str
) -> None:
    route = await router(resolver).route(literal)
    assert route.kind == "literal"
    assert route.hosts == (NextHost(literal.lower(), 25, 0, (address,), canonical=literal.lower()),)
    assert dns_server.queries == []


@pytest.mark.parametrize(
    "literal", ["[0.0.0.0]", "[IPv6:::]", "[224.0.0.1]", "[IPv6:fe80::1%eth0]", "[x]", "["]
)
async def test_a_literal_that_is_no_hosts_address_fails_mail_for_good(
    resolver: Resolver, literal: str
) -> None:
    failed = await failure(router(resolver), literal)
    assert (failed.code, failed.status) == (550, "5.1.2")


@pytest.mark.parametrize("target", ["192.0.2.1.", "nowhere.test.", "empty.test.", "unusable.test."])
async def test_an_exchanger_that_is_of_no_use_is_passed_over(
    zones: Zones, resolver: Resolver, target: str
) -> None:
    zones.set("example.test", "MX", f"10 {target}", "20 good.test.")
    zones.a("empty.test")
    zones.a("unusable.test", "0.0.0.0", "ff02::1")
    zones.a("good.test", "192.0.2.1")
    route = await router(resolver).route("example.test")
    assert names(route) == ["good.test"]
    assert len(route.passed_over) == 1
    assert target.rstrip(".") in route.passed_over[0]

    zones.set("example.test", "MX", f"10 {target}")
    failed = await failure(router(resolver), "example.test")
    assert (failed.code, failed.status) == (550, "5.4.4")
    assert target.rstrip(".") in failed.why


async def test_mail_is_deferred_if_one_of_the_useless_exchangers_may_be_of_use_later(
    zones: Zones, resolver: Resolver
) -> None:
    zones.mx("example.test", "10 nowhere.test", "20 broken.test")
    zones.fail("broken.test", "A")
    zones.fail("broken.test", "AAAA")
    assert (await failure(router(resolver), "example.test")).status == "4.4.3"


async def test_of_many_exchangers_more_are_looked_up_while_none_has_an_address(
    zones: Zones, dns_server: DNSServer, resolver: Resolver
) -> None:
    zones.mx("example.test", *[f"{n} m{n}.test" for n in range(60)])
    zones.a("m15.test", "192.0.2.1")
    assert names(await router(resolver).route("example.test")) == ["m15.test"]
    assert dns_server.asked("m19.test", "A") == 1
    assert dns_server.asked("m20.test", "A") == 0
    zones.forget("m15.test")
    zones.a("m45.test", "192.0.2.1")
    assert (await failure(router(resolver), "example.test")).status == "5.4.4"
    assert dns_server.asked("m45.test", "A") == 0, "there is an end to it"


# RFC 5321 5.1: our own place in the list


async def test_exchangers_that_are_no_better_than_we_are_dropped(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", "5 best.test", f"10 {OURS.upper()}", "10 same.test", "20 worse.test")
    for name in ("best.test", OURS, "same.test", "worse.test"):
        zones.a(name, "192.0.2.1")
    assert names(await router(resolver).route("example.test")) == ["best.test"]


async def test_mail_whose_best_exchanger_we_are_fails_for_good(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", f"10 {OURS}", "20 worse.test")
    zones.a("worse.test", "192.0.2.1")
    failed = await failure(router(resolver), "example.test")
    assert (failed.code, failed.status) == (550, "5.4.6")


async def test_an_exchanger_with_our_address_and_port_is_us(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", "5 best.test", "10 alias-of-ours.test", "10 same.test")
    zones.a("best.test", "192.0.2.1")
    zones.a("alias-of-ours.test", "192.0.2.7")
    zones.a("same.test", "192.0.2.2")
    own = OwnHost([], [("192.0.2.7", 25)])
    for seed in range(5):
        found = await router(resolver, own=own, random=Random(seed)).route("example.test")
        assert names(found) == ["best.test"]
    assert len(names(await router(resolver, own=own, port=26).route("example.test"))) == 3, "another port"
    zones.mx("example.test", "10 alias-of-ours.test")
    assert (await failure(router(resolver, own=own), "example.test")).status == "5.4.6"


async def test_of_many_exchangers_of_one_preference_each_is_known_not_to_be_us(
    zones: Zones, resolver: Resolver
) -> None:
    zones.mx("example.test", *[f"10 m{n}.test" for n in range(14)], "5 best.test")
    for n in range(14):
        zones.a(f"m{n}.test", f"192.0.2.{n}")
    zones.a("best.test", "198.51.100.1")
    own = OwnHost([], [("192.0.2.13", 25)])
    for seed in range(5):
        found = await router(resolver, own=own, random=Random(seed)).route("example.test")
        assert names(found) == ["best.test"]


@pytest.mark.parametrize("interface", ["0.0.0.0", "::", "127.0.0.1"])
async def test_loopback_is_us_where_we_listen_there(zones: Zones, resolver: Resolver, interface: str) -> None:
    zones.mx("example.test", "10 a.test")
    zones.a("a.test", "127.0.0.1")
    own = OwnHost([], [(interface, 2525)])
    assert (await failure(router(resolver, own=own, port=2525), "example.test")).status == "5.4.6"
    assert addresses(await router(resolver, own=own, port=2526).route("example.test")) == ["127.0.0.1"]


async def test_all_interfaces_are_not_all_the_world(zones: Zones, resolver: Resolver) -> None:
    zones.a("example.test", "192.0.2.1", "2001:db8::1")
    own = OwnHost([], [("0.0.0.0", 25), ("::", 25)])
    assert len(addresses(await router(resolver, own=own).route("example.test"))) == 2


@pytest.mark.parametrize("destination", [OURS, "[127.0.0.1]", "loop.test"])
async def test_domains_and_literals_that_are_ours_fail_mail_for_good(
    zones: Zones, resolver: Resolver, destination: str
) -> None:
    zones.a(OURS, "192.0.2.1")
    zones.a("loop.test", "127.0.0.1")
    own = OwnHost([OURS], [("127.0.0.1", 25)])
    assert (await failure(router(resolver, own=own), destination)).status == "5.4.6"


# Which addresses


async def test_five_addresses_are_tried_in_all_and_every_host_and_family_has_its_turn(
    zones: Zones, resolver: Resolver
) -> None:
    zones.mx("example.test", "10 many.test", "20 backup.test")
    zones.a("many.test", *[f"192.0.2.{n}" for n in range(9)], *[f"2001:db8::{n}" for n in range(1, 9)])
    zones.a("backup.test", "198.51.100.1")
    route = await router(resolver).route("example.test")
    assert names(route) == ["many.test", "backup.test"]
    first, backup = route.hosts
    assert len(first.addresses) + len(backup.addresses) == MOST_ADDRESSES
    assert [":" in address for address in first.addresses] == [True, False, True, False]


async def test_addresses_without_a_way_take_no_place(zones: Zones, resolver: Resolver) -> None:
    zones.mx("example.test", "10 six.test", "20 both.test")
    zones.a("six.test", *[f"2001:db8::{n}" for n in range(1, 9)])
    zones.a("both.test", "2001:db8::99", "192.0.2.1", "192.0.2.2")
    route = await router(resolver, reachable=lambda address: ":" not in address).route("example.test")
    assert names(route) == ["both.test"]
    assert sorted(addresses(route)) == ["192.0.2.1", "192.0.2.2"]


async def test_where_there_is_no_way_at_all_the_connection_may_tell_why(
    zones: Zones, resolver: Resolver
) -> None:
    zones.a("example.test", "192.0.2.1")
    route = await router(resolver, reachable=lambda address: False).route("example.test")
    assert addresses(route) == ["192.0.2.1"]


# DNSSEC


@pytest.mark.parametrize("signed", [True, False])
async def test_the_route_tells_whether_dns_was_validated(
    zones: Zones, resolver: Resolver, signed: bool
) -> None:
    zones.mx("example.test", "10 a.test", signed=signed)
    zones.a("a.test", "192.0.2.1", "2001:db8::1", signed=signed)
    route = await router(resolver).route("example.test")
    assert (route.secure, route.hosts[0].secure) == (signed, signed)


@pytest.mark.parametrize("signed", [True, False])
async def test_a_validated_lack_of_exchangers_is_told(zones: Zones, resolver: Resolver, signed: bool) -> None:
    zones.a("example.test", "192.0.2.1", signed=signed)
    if signed:
        zones.signed.add("example.test")
    route = await router(resolver).route("example.test")
    assert (route.kind, route.secure, route.hosts[0].secure) == ("address", signed, signed)


async def test_an_untrusted_servers_word_does_not_count(zones: Zones, dns_server: DNSServer) -> None:
    zones.mx("example.test", "10 a.test", signed=True)
    zones.a("a.test", "192.0.2.1", signed=True)
    resolver = Resolver([dns_server.address], reactor=reactor, timeout=30, trusted=())
    route = await router(resolver).route("example.test")
    assert (route.secure, route.hosts[0].secure) == (False, False)


# Relays


async def test_a_smarthost_takes_everything(zones: Zones, dns_server: DNSServer, resolver: Resolver) -> None:
    zones.a("smart.test", "192.0.2.1")
    zones.mx("smart.test", "10 other.test")
    found = router(resolver, relay=Relay("Smart.test", 2587))
    for destination in ("example.test", "[192.0.2.9]", "nowhere.test"):
        route = await found.route(destination)
        assert (route.kind, route.destination) == ("relay", destination)
        assert route.hosts == (NextHost("smart.test", 2587, 0, ("192.0.2.1",), canonical="smart.test"),)
    assert dns_server.asked("example.test", "MX") + dns_server.asked("smart.test", "MX") == 0


async def test_a_relay_of_one_destination_comes_before_the_smarthost(
    zones: Zones, resolver: Resolver
) -> None:
    zones.a("special.test", "192.0.2.2")
    route = await router(resolver, relay=Relay("smart.test")).route("example.test", Relay("special.test", 26))
    assert route.hosts == (NextHost("special.test", 26, 0, ("192.0.2.2",), canonical="special.test"),)


@pytest.mark.parametrize("host", ["192.0.2.1", "[192.0.2.1]"])
async def test_a_relay_may_be_an_address(dns_server: DNSServer, resolver: Resolver, host: str) -> None:
    route = await router(resolver, relay=Relay(host, 25)).route("example.test")
    assert route.hosts == (NextHost("[192.0.2.1]", 25, 0, ("192.0.2.1",), canonical="[192.0.2.1]"),)
    assert dns_server.queries == []


async def test_nothing_that_is_wrong_with_a_relay_fails_mail_for_good(
    zones: Zones, resolver: Resolver
) -> None:
    zones.a("empty.test")
    zones.fail("broken.test", "A")
    zones.a("ours.test", "127.0.0.1")
    own = OwnHost([OURS], [("127.0.0.1", 587)])
    found = {}
    for host in ("nowhere.test", "empty.test", "broken.test", "ours.test"):
        failed = await failure(router(resolver, own=own, relay=Relay(host)), "example.test")
        assert not failed.permanent
        found[host] = failed.status
    assert found == {
        "nowhere.test": "4.4.4",
        "empty.test": "4.4.4",
        "broken.test": "4.4.3",
        "ours.test": "4.3.5",
    }


async def test_zones_may_change_while_the_server_runs(zones: Zones, resolver: Resolver) -> None:
    zones.fallback = Entry(rcode="SERVFAIL")
    assert (await failure(router(resolver), "example.test")).status == "4.4.3"
    zones.fallback = None
    assert (await failure(router(resolver), "example.test")).status == "5.4.4"
    zones.forget("example.test")
    zones.mx("example.test", "10 a.test")
    zones.a("a.test", "192.0.2.1")
    assert names(await router(resolver).route("example.test")) == ["a.test"]
