"""Fetching policies from a real HTTPS server (RFC 8461 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from relaymail.delivery.mta_sts_policy import LARGEST_POLICY
from relaymail.delivery.policy_fetch import FetchFailed, PolicyFetcher
from relaymail.dns import Resolver
from tests.conftest import reactor, run_on_reactor
from tests.smtp_tls.conftest import Issued, issue
from tests.support.dns_server import Zones
from tests.support.policy_server import POLICY, PolicyServer, answer, trust
from tests.support.waiting import until

HOST = "mta-sts.example.test"


@pytest.fixture(scope="module")
def root() -> Issued:
    return issue("Root", authority=True)


@pytest.fixture
def servers(root: Issued, zones: Zones) -> Iterator[Callable[..., PolicyServer]]:
    """Makes servers that end with the test; the last is where the policy host leads."""
    made: list[PolicyServer] = []
    zones.a(HOST, "127.0.0.1")

    def make(issued: Issued | None = None) -> PolicyServer:
        made.append(PolicyServer(reactor, issued or issue(HOST, root)))
        return made[-1]

    yield make
    for server in made:
        run_on_reactor(server.stop())


@pytest.fixture
def server(servers: Callable[..., PolicyServer]) -> PolicyServer:
    return servers()


@pytest.fixture
def fetcher(resolver: Resolver, root: Issued) -> Callable[..., PolicyFetcher]:
    def make(server: PolicyServer, **options: Any) -> PolicyFetcher:
        options = {"trust": trust(root), "port": server.port, **options}
        return PolicyFetcher(resolver, reactor=reactor, **options)

    return make


async def why(fetcher: PolicyFetcher) -> str:
    with pytest.raises(FetchFailed) as caught:
        await fetcher.fetch("example.test")
    return str(caught.value)


async def test_a_policy_is_fetched(server: PolicyServer, fetcher: Callable[..., PolicyFetcher]) -> None:
    assert await fetcher(server).fetch("example.test") == POLICY
    [request] = server.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /.well-known/mta-sts.txt HTTP/1.1"
    assert f"Host: {HOST}" in lines
    assert not any("cookie" in line.lower() or "accept-encoding" in line.lower() for line in lines)
    await until(reactor, lambda: not server.open)


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "Text/Plain"])
async def test_the_content_type_may_have_parameters(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher], content_type: str
) -> None:
    server.publish(POLICY, content_type=content_type)
    assert await fetcher(server).fetch("example.test") == POLICY


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream", "text/plainer", ""])
async def test_another_content_type_is_no_policy(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher], content_type: str
) -> None:
    server.publish(POLICY, content_type=content_type)
    assert await why(fetcher(server)) == "the answer is not text/plain"


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
async def test_redirects_are_not_followed(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher], status: str
) -> None:
    location = f"Location: https://{HOST}:{server.port}/.well-known/mta-sts.txt"
    server.respond = lambda: [answer(POLICY, status, "text/plain", location)]
    assert await why(fetcher(server)) == f"the web server answered {status[:3]}"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "203 Other", "206 Part"])
async def test_only_200_is_a_policy(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher], status: str
) -> None:
    server.publish(POLICY, status=status)
    assert await why(fetcher(server)) == f"the web server answered {status[:3]}"


# Certificates


async def test_the_certificate_must_be_for_the_policy_host(
    servers: Callable[..., PolicyServer], fetcher: Callable[..., PolicyFetcher], root: Issued
) -> None:
    server = servers(issue("example.test", root))
    assert "cannot be used" in await why(fetcher(server))
    assert server.requests == []


async def test_a_wildcard_certificate_is_good_enough(
    servers: Callable[..., PolicyServer], fetcher: Callable[..., PolicyFetcher], root: Issued
) -> None:
    assert await fetcher(servers(issue("*.example.test", root))).fetch("example.test") == POLICY


async def test_the_certificate_must_be_of_an_authority(
    servers: Callable[..., PolicyServer], fetcher: Callable[..., PolicyFetcher]
) -> None:
    server = servers(issue(HOST))
    assert "cannot be used" in await why(fetcher(server))
    assert server.requests == []


async def test_the_systems_authorities_are_the_default(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    assert "cannot be used" in await why(fetcher(server, trust=None))
    assert server.requests == []


async def test_the_certificate_must_not_have_expired(
    servers: Callable[..., PolicyServer], fetcher: Callable[..., PolicyFetcher], root: Issued
) -> None:
    server = servers(issue(HOST, root, ends=timedelta(days=-1)))
    assert "cannot be used" in await why(fetcher(server))
    assert server.requests == []


# Limits


async def test_a_policy_of_64_kib_is_taken_and_a_larger_one_is_not(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    server.publish("x" * LARGEST_POLICY)
    assert len(await fetcher(server).fetch("example.test")) == LARGEST_POLICY
    server.publish("x" * (LARGEST_POLICY + 1))
    assert await why(fetcher(server)) == "the answer is larger than 64 KiB"
    await until(reactor, lambda: not server.open)


async def test_an_endless_policy_is_cut(server: PolicyServer, fetcher: Callable[..., PolicyFetcher]) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
    server.respond = lambda: [head, *[b"x" * 16384] * 200]
    assert await why(fetcher(server)) == "the answer is larger than 64 KiB"
    await until(reactor, lambda: not server.open)


async def test_an_endless_head_is_cut(server: PolicyServer, fetcher: Callable[..., PolicyFetcher]) -> None:
    server.respond = lambda: [b"HTTP/1.1 200 OK\r\n", *[b"X-Field: " + b"x" * 100 + b"\r\n"] * 20_000]
    assert await why(fetcher(server)) == "the answer is larger than 64 KiB"
    await until(reactor, lambda: not server.open)


async def test_a_cut_policy_is_none(server: PolicyServer, fetcher: Callable[..., PolicyFetcher]) -> None:
    def respond() -> list[bytes]:
        [connection] = server.open
        reactor.callLater(0.05, connection.transport.loseConnection)
        return [answer(POLICY)[:-3]]

    server.respond = respond
    assert await why(fetcher(server)) == "the answer was cut off"


async def test_a_policy_without_a_length_that_ends_with_the_connection_is_none(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    def respond() -> list[bytes]:
        [connection] = server.open
        reactor.callLater(0.05, connection.transport.loseConnection)
        return [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + POLICY.encode()]

    server.respond = respond
    assert await why(fetcher(server)) == "the answer was cut off"


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n", answer(POLICY)[:-5]])
async def test_a_server_that_stops_talking_is_given_up(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher], sent: bytes
) -> None:
    server.respond = lambda: [sent]
    assert await why(fetcher(server, limit=0.5)) == "not there within 0.5 s"
    await until(reactor, lambda: not server.open)


async def test_what_is_no_http_is_no_policy(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    server.respond = lambda: [b"220 mail.example.test ESMTP\r\n\r\n"]
    assert "cannot be used" in await why(fetcher(server))
    await until(reactor, lambda: not server.open)


async def test_a_compressed_policy_is_none(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    server.respond = lambda: [answer(POLICY, "200 OK", "text/plain", "Content-Encoding: gzip")]
    assert await why(fetcher(server)) == "the answer is compressed"


async def test_a_policy_that_is_not_utf8_is_none(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    server.publish(b"version: STSv1\r\nx: \xff\r\n")
    assert await why(fetcher(server)) == "the policy is not UTF-8"


# The way there


async def test_the_next_address_is_tried_when_one_does_not_answer(
    zones: Zones, server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    zones.a(HOST, "127.0.0.9", "127.0.0.1", "::1")
    assert await fetcher(server).fetch("example.test") == POLICY


async def test_a_host_where_nothing_listens_has_no_policy(
    zones: Zones, server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    zones.a(HOST, "127.0.0.9")
    assert await why(fetcher(server)) == "no connection to the web server"


async def test_a_host_that_does_not_exist_has_no_policy(
    zones: Zones, server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    zones.forget(HOST)
    assert await why(fetcher(server)) == f"{HOST} does not exist"


async def test_an_alias_of_the_host_is_followed_and_the_certificate_is_the_hosts(
    zones: Zones, server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    zones.forget(HOST)
    zones.cname(HOST, "provider.test")
    zones.a("provider.test", "127.0.0.1")
    assert await fetcher(server).fetch("example.test") == POLICY


async def test_a_domain_that_no_certificate_could_be_for_has_no_policy(
    zones: Zones, server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    zones.a("mta-sts.under_score.test", "127.0.0.1")
    with pytest.raises(FetchFailed):
        await fetcher(server).fetch("under_score.test")


async def test_a_fetch_that_is_given_up_leaves_no_connection(
    server: PolicyServer, fetcher: Callable[..., PolicyFetcher]
) -> None:
    server.respond = list
    fetching = Deferred.fromCoroutine(fetcher(server).fetch("example.test"))
    await until(reactor, lambda: bool(server.requests))
    fetching.cancel()
    with pytest.raises(CancelledError):
        await fetching
    await until(reactor, lambda: not server.open)
