"""What a lookup comes to, against a real server on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Network

import dns.flags
import dns.message
import dns.rrset
import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.dns import MX, DNSFailure, NoRecords, NoSuchDomain, Resolver
from tests.conftest import reactor
from tests.dns.server import (
    DNSServer,
    answer,
    code,
    garbage,
    silence,
    truncated,
    wrong_id,
)
from tests.support.ipv6 import needs_ipv6
from tests.support.waiting import pause, until


async def test_exchangers_come_by_preference(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer("20 B.example.test.", "10 c.example.test.", "5 a.example.test.")
    assert await resolver.mx("example.test") == [
        MX(5, "a.example.test"),
        MX(10, "c.example.test"),
        MX(20, "b.example.test"),
    ]
    assert dns_server.queries == [("udp", "example.test.", "MX")]


async def test_a_null_mx_is_told_apart(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer("0 .")
    [exchanger] = await resolver.mx("example.test")
    assert exchanger == MX(0, ".")
    assert exchanger.is_null
    assert not MX(0, "mx.example.test").is_null


async def test_nxdomain_is_no_such_domain(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = code("NXDOMAIN")
    with pytest.raises(NoSuchDomain, match=r"nowhere\.test does not exist"):
        await resolver.mx("nowhere.test")


async def test_an_answer_without_data_is_no_records(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer()
    with pytest.raises(NoRecords, match=r"example\.test has no MX records"):
        await resolver.mx("example.test")


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".test", "\udc80.test"])
async def test_what_is_no_name_is_no_such_domain_and_not_asked(
    dns_server: DNSServer, resolver: Resolver, name: str
) -> None:
    with pytest.raises(NoSuchDomain):
        await resolver.mx(name)
    assert dns_server.queries == []


async def test_a_name_in_unicode_is_asked_in_ascii(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer("10 mx.example.test.")
    await resolver.mx("Bücher.example")
    assert dns_server.queries == [("udp", "xn--bcher-kva.example.", "MX")]


@pytest.mark.parametrize(
    ("rcode", "kind"),
    [("SERVFAIL", "servfail"), ("REFUSED", "refused"), ("NOTIMP", "servfail"), ("YXDOMAIN", "servfail")],
)
async def test_an_error_code_is_a_failure_of_its_kind(
    dns_server: DNSServer, resolver: Resolver, rcode: str, kind: str
) -> None:
    dns_server.behaviour = code(rcode)
    with pytest.raises(DNSFailure) as caught:
        await resolver.mx("example.test")
    assert caught.value.kind == kind


@pytest.mark.parametrize("behaviour", [silence, garbage, wrong_id])
async def test_silence_garbage_and_forgeries_end_as_a_timeout(
    dns_server: DNSServer, behaviour: Callable[[dns.message.Message, str], bytes | None]
) -> None:
    dns_server.behaviour = behaviour
    resolver = Resolver([dns_server.address], reactor=reactor, timeout=1.0)
    with pytest.raises(DNSFailure) as caught:
        await resolver.mx("example.test")
    assert caught.value.kind == "timeout"
    assert len(dns_server.queries) >= 2, "a lost packet is asked for again"


async def test_the_right_answer_behind_a_forgery_is_taken(dns_server: DNSServer, resolver: Resolver) -> None:
    right = answer("10 mx.example.test.")

    def forgery_first(query: dns.message.Message, transport: str) -> bytes | None:
        late = dns.message.from_wire(query.to_wire())
        reactor.callLater(0.05, lambda: send_late(right(late, transport)))
        return wrong_id(query, transport)

    def send_late(wire: bytes | None) -> None:
        dns_server.send_datagram(wire)

    dns_server.behaviour = forgery_first
    assert await resolver.mx("example.test") == [MX(10, "mx.example.test")]


async def test_a_port_where_nothing_listens_is_a_network_failure_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    resolver = Resolver([f"127.0.0.1:{port}"], reactor=reactor, timeout=3600)
    with pytest.raises(DNSFailure) as caught:
        await resolver.mx("example.test")
    assert caught.value.kind == "network"


async def test_a_truncated_answer_is_fetched_over_tcp(dns_server: DNSServer, resolver: Resolver) -> None:
    many = [f"{n} mx{n}.{'long' * 10}.example.test." for n in range(600)]
    dns_server.behaviour = truncated(answer(*many))
    exchangers = await resolver.mx("example.test")
    assert [exchanger.preference for exchanger in exchangers] == list(range(600))
    assert [query[0] for query in dns_server.queries] == ["udp", "tcp"]


async def test_garbage_over_tcp_is_a_network_failure(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = truncated(garbage)
    with pytest.raises(DNSFailure) as caught:
        await resolver.mx("example.test")
    assert caught.value.kind == "network"


async def test_silence_over_tcp_is_a_timeout(dns_server: DNSServer) -> None:
    dns_server.behaviour = truncated(silence)
    resolver = Resolver([dns_server.address], reactor=reactor, timeout=2)
    with pytest.raises(DNSFailure) as caught:
        await resolver.mx("example.test")
    assert caught.value.kind == "timeout"


async def test_the_next_server_is_asked_when_the_first_fails(
    dns_servers: Callable[[], DNSServer],
) -> None:
    broken, good = dns_servers(), dns_servers()
    broken.behaviour, good.behaviour = code("SERVFAIL"), answer("10 mx.example.test.")
    resolver = Resolver([broken.address, good.address], reactor=reactor, timeout=30)
    assert await resolver.mx("example.test") == [MX(10, "mx.example.test")]
    assert len(broken.queries) == 1


async def test_the_next_server_is_asked_when_the_first_is_silent(
    dns_servers: Callable[[], DNSServer],
) -> None:
    dead, good = dns_servers(), dns_servers()
    good.behaviour = answer("10 mx.example.test.")
    resolver = Resolver([dead.address, good.address], reactor=reactor, timeout=4)
    assert await resolver.mx("example.test") == [MX(10, "mx.example.test")]


@needs_ipv6
async def test_a_server_on_ipv6_is_asked(dns_servers: Callable[[str], DNSServer]) -> None:
    server = dns_servers("::1")
    server.behaviour = truncated(answer("10 mx.example.test."))
    resolver = Resolver([server.address], reactor=reactor, timeout=30)
    assert await resolver.mx("example.test") == [MX(10, "mx.example.test")]
    assert [query[0] for query in server.queries] == ["udp", "tcp"]


async def test_answers_are_cached_and_fresh_asks_again(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer("10 mx.example.test.")
    await resolver.mx("example.test")
    await resolver.mx("EXAMPLE.test.")
    assert len(dns_server.queries) == 1
    await resolver.mx("example.test", fresh=True)
    assert len(dns_server.queries) == 2


@pytest.mark.parametrize("authentic", [True, False])
async def test_denials_are_cached_as_what_they_are(
    dns_server: DNSServer, resolver: Resolver, authentic: bool
) -> None:
    denial = code("NXDOMAIN")

    def authenticated_denial(query: dns.message.Message, transport: str) -> bytes | None:
        wire = denial(query, transport)
        assert wire is not None
        response = dns.message.from_wire(wire)
        if authentic:
            response.flags |= dns.flags.AD
        return response.to_wire()

    dns_server.behaviour = answer(authentic=authentic)
    for _ in range(3):
        with pytest.raises(NoRecords, match=r"example\.test has no TLSA records") as nodata:
            await resolver.lookup("example.test", "TLSA")
        assert nodata.value.authenticated == authentic
    assert len(dns_server.queries) == 1
    dns_server.behaviour = authenticated_denial
    for rdtype in ("TLSA", "MX", "A"):
        with pytest.raises(NoSuchDomain, match=r"nowhere\.test does not exist") as nxdomain:
            await resolver.lookup("nowhere.test", rdtype)
        assert (nxdomain.value.authenticated, nxdomain.value.rdtype) == (authentic, rdtype)
    assert len(dns_server.queries) == 2, "no type of a name that does not exist"


async def test_a_cached_alias_tells_whose_records_they_are(dns_server: DNSServer, resolver: Resolver) -> None:
    def alias(query: dns.message.Message, transport: str) -> bytes:
        response = dns.message.make_response(query)
        response.answer = [
            dns.rrset.from_text("a.example.test.", 60, "IN", "CNAME", "B.example.test."),
            dns.rrset.from_text("B.example.test.", 60, "IN", "A", "192.0.2.1"),
        ]
        return response.to_wire()

    dns_server.behaviour = alias
    for _ in range(2):
        assert (await resolver.lookup("A.example.test", "A")).canonical == "b.example.test"
    assert len(dns_server.queries) == 1


async def test_an_answer_without_lifetime_is_not_kept(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer("10 mx.example.test.", ttl=0)
    await resolver.mx("example.test")
    await resolver.mx("example.test")
    assert len(dns_server.queries) == 2


async def test_a_failure_is_not_cached(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = code("SERVFAIL")
    with pytest.raises(DNSFailure):
        await resolver.mx("example.test")
    dns_server.behaviour = answer("10 mx.example.test.")
    assert await resolver.mx("example.test") == [MX(10, "mx.example.test")]


async def test_a_cancelled_lookup_asks_nobody_else(dns_servers: Callable[[], DNSServer]) -> None:
    first, second = dns_servers(), dns_servers()
    resolver = Resolver([first.address, second.address], reactor=reactor, timeout=60)
    lookup = Deferred.fromCoroutine(resolver.mx("example.test"))
    await until(reactor, lambda: bool(first.queries))
    lookup.cancel()
    with pytest.raises(CancelledError):
        await lookup
    await pause(reactor, 0.05)
    assert second.queries == []
    assert len(first.queries) == 1


async def test_a_lookup_cancelled_over_tcp_drops_the_connection(dns_server: DNSServer) -> None:
    dns_server.behaviour = truncated(silence)
    resolver = Resolver([dns_server.address], reactor=reactor, timeout=60)
    lookup = Deferred.fromCoroutine(resolver.mx("example.test"))
    await until(reactor, lambda: len(dns_server.queries) == 2)
    lookup.cancel()
    with pytest.raises(CancelledError):
        await lookup
    await until(reactor, lambda: not dns_server.streams)


async def test_other_types_come_with_their_ttl(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer("192.0.2.1", "192.0.2.2", ttl=77)
    found = await resolver.lookup("mx.example.test", "A")
    assert sorted(record.to_text() for record in found.records) == ["192.0.2.1", "192.0.2.2"]
    assert found.ttl == 77
    assert not found.authenticated


async def test_the_authentic_data_bit_of_a_trusted_server_counts(
    dns_server: DNSServer, resolver: Resolver
) -> None:
    dns_server.behaviour = answer("192.0.2.1", authentic=True)
    assert (await resolver.lookup("mx.example.test", "A")).authenticated
    assert dns_server.messages[0].flags & dns.flags.AD, "the query asks for the bit"


async def test_the_authentic_data_bit_of_another_server_does_not_count(dns_server: DNSServer) -> None:
    dns_server.behaviour = answer("192.0.2.1", authentic=True)
    resolver = Resolver([dns_server.address], reactor=reactor, trusted=[IPv4Network("192.0.2.0/24")])
    assert not (await resolver.lookup("mx.example.test", "A")).authenticated
    dns_server.behaviour = answer(authentic=True)
    with pytest.raises(NoRecords) as caught:
        await resolver.lookup("mx.example.test", "TLSA")
    assert not caught.value.authenticated


async def test_an_authentic_denial_says_so(dns_server: DNSServer, resolver: Resolver) -> None:
    dns_server.behaviour = answer(authentic=True)
    with pytest.raises(NoRecords) as caught:
        await resolver.lookup("mx.example.test", "TLSA")
    assert caught.value.authenticated


async def test_an_alias_is_followed(dns_server: DNSServer, resolver: Resolver) -> None:
    def alias(query: dns.message.Message, transport: str) -> bytes:
        response = dns.message.make_response(query)
        response.answer = [
            dns.rrset.from_text("example.test.", 60, "IN", "CNAME", "other.test."),
            dns.rrset.from_text("other.test.", 60, "IN", "MX", "10 mx.other.test."),
        ]
        return response.to_wire()

    dns_server.behaviour = alias
    assert await resolver.mx("example.test") == [MX(10, "mx.other.test")]


async def test_an_unknown_type_is_the_callers_mistake(resolver: Resolver) -> None:
    with pytest.raises(dns.rdatatype.UnknownRdatatype):
        await resolver.lookup("example.test", "NONSENSE")


async def test_many_lookups_at_once_do_not_mix(dns_server: DNSServer, resolver: Resolver) -> None:
    def by_name(query: dns.message.Message, transport: str) -> bytes | None:
        first = query.question[0].name.labels[0].decode()
        return answer(f"10 mx-{first}.example.test.")(query, transport)

    dns_server.behaviour = by_name
    lookups = [Deferred.fromCoroutine(resolver.mx(f"d{n}.example.test")) for n in range(50)]
    for n, lookup in enumerate(lookups):
        assert await lookup == [MX(10, f"mx-d{n}.example.test")]
