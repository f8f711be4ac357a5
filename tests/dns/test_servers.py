"""Which servers are asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from relaymail.dns import parse_server
from relaymail.dns.servers import Server, SystemServers, read_resolv_conf
from tests.conftest import reactor


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", Server("192.0.2.1", 53)),
        ("192.0.2.1:5353", Server("192.0.2.1", 5353)),
        ("2001:db8::1", Server("2001:db8::1", 53)),
        ("[2001:db8::1]", Server("2001:db8::1", 53)),
        (" [2001:db8::1]:5353 ", Server("2001:db8::1", 5353)),
        ("fe80::1%lo", Server("fe80::1%lo", 53)),
    ],
)
def test_a_server_is_an_address_with_or_without_port(text: str, server: Server) -> None:
    assert parse_server(text) == server


@pytest.mark.parametrize(
    "text",
    ["", "dns.example.test", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:٥٣", "[::1]5353"],
)
def test_anything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="is no DNS server"):
        parse_server(text)


def test_the_nameservers_of_resolv_conf_are_used_in_order(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# ours\nsearch example.test\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions ndots:5\n"
    )
    assert read_resolv_conf(str(path)) == (Server("192.0.2.1", 53), Server("2001:db8::1", 53))


@pytest.mark.parametrize("text", [None, "", "search example.test\n", "nameserver not-an-address\n"])
def test_without_usable_nameservers_the_local_machine_is_asked(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "resolv.conf"
    if text is not None:
        path.write_text(text)
    assert read_resolv_conf(str(path)) == (Server("127.0.0.1", 53),)


async def test_a_changed_resolv_conf_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")
    clock = _ReactorWithOwnTime()
    servers = SystemServers(reactor=clock, path=str(path))
    assert await servers.current() == (Server("192.0.2.1", 53),)
    path.write_text("nameserver 192.0.2.2\n")
    assert await servers.current() == (Server("192.0.2.1", 53),)
    clock.now += 61
    assert await servers.current() == (Server("192.0.2.2", 53),)


class _ReactorWithOwnTime:
    """The real reactor's threads, a time of the test's."""

    now = 0.0

    def seconds(self) -> float:
        return self.now

    def getThreadPool(self) -> object:
        return reactor.getThreadPool()

    def callFromThread(self, *args: object) -> None:
        reactor.callFromThread(*args)
