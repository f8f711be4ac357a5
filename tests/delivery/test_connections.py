"""Which connection a message goes over: the hosts of the route in their order, in clear only where that is
allowed, one that is open already where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from twisted.internet.task import Clock

from relaymail.delivery.connections import Connections, Link, NoConnection, Way
from relaymail.delivery.observer import Nobody
from relaymail.delivery.route import NextHost, Route, RouteKind
from relaymail.delivery.tls_policy import HostPolicy, HostRefused, Override
from relaymail.smtp.client import ConnectFailed
from relaymail.smtp.client_mail import Phase
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_tls import TLSProblem, TLSRequirement


@dataclass
class FakeConnection:
    """What of a connection counts here."""

    address: str
    name: str = "mx.test"
    tls: None = None
    usable: bool = True
    transactions: int = 0
    ended: bool = False
    capabilities: Any = field(init=False)

    def __post_init__(self) -> None:
        self.capabilities = self

    def quit(self) -> None:
        self.usable = False
        self.ended = True


class Network:
    """Hosts that fail as a test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.failures: dict[str, list[ConnectFailed]] = {}
        self.refused: dict[str, HostRefused] = {}
        self.requirement = TLSRequirement.opportunistic()
        self.names: dict[str, str] = {}
        self.tried: list[tuple[str, str]] = []
        self.policies_asked = 0

    async def connect(self, host: NextHost, address: str, policy: HostPolicy, tls: TLSRequirement) -> Any:
        self.tried.append((address, tls.mode.value))
        if self.failures.get(address):
            raise self.failures[address].pop(0)
        return FakeConnection(address, self.names.get(address, "mx.test"))

    async def for_host(self, route: Route, host: NextHost, **_: object) -> HostPolicy:
        self.policies_asked += 1
        if host.name in self.refused:
            raise self.refused[host.name]
        return HostPolicy("opportunistic", self.requirement, host.name, "as it is")

    def connections(self) -> Connections:
        policies: Any = self
        return Connections(
            self.connect, policies, reactor=self.clock, observer=Nobody(), own_names={"us.test"}, idle=5.0
        )


def failed(
    status: str = "4.4.1", *, phase: Phase = "connect", code: int | None = None, tls: bool = False
) -> ConnectFailed:
    reply = None if code is None else RemoteReply(code, None, ("no",))
    problem: TLSProblem | None = "handshake" if tls else None
    return ConnectFailed(phase, "no way", status=status, reply=reply, tls_problem=problem)


def refused(code: int = 554) -> ConnectFailed:
    return failed("5.3.2", phase="greeting", code=code)


def way(*addresses: tuple[str, ...], kind: RouteKind = "mx") -> Way:
    hosts = tuple(NextHost(f"mx{n}.test", 25, n, found) for n, found in enumerate(addresses))
    return Way(Route("elsewhere.test", kind, hosts), Override())


async def first(connections: Connections, to: Way) -> Link:
    search = connections.search(to)
    try:
        return await anext(search)
    finally:
        await search.aclose()


@pytest.fixture
def net() -> Network:
    return Network()


async def test_hosts_and_addresses_are_tried_in_order(net: Network) -> None:
    net.failures = {
        "192.0.2.1": [failed()],
        "192.0.2.2": [failed()],
        "192.0.2.3": [refused()],
    }
    to = way(("192.0.2.1", "192.0.2.2"), ("192.0.2.3", "192.0.2.4"), ("192.0.2.5",))
    link = await first(net.connections(), to)
    # What greets with a 5xx is not asked at its other address
    assert [address for address, _ in net.tried] == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.5"]
    assert link.place.host == "mx2.test"


async def test_there_is_hope_as_long_as_one_host_leaves_any(net: Network) -> None:
    net.failures = {
        "192.0.2.1": [failed("4.3.2", phase="greeting", code=421)],
        "192.0.2.2": [refused()],
    }
    with pytest.raises(NoConnection) as none:
        await first(net.connections(), way(("192.0.2.1",), ("192.0.2.2",)))
    assert (none.value.worst.outcome.verdict, none.value.worst.outcome.status) == ("deferred", "4.3.2")
    net.failures = {address: [refused(521)] for address in ("192.0.2.1", "192.0.2.2")}
    with pytest.raises(NoConnection) as none:
        await first(net.connections(), way(("192.0.2.1",), ("192.0.2.2",)))
    assert none.value.worst.outcome.verdict == "failed"


@pytest.mark.parametrize(
    ("code", "kind", "expected"),
    [
        (554, "mx", ("deferred", "4.3.2")),
        (550, "mx", ("deferred", "4.3.2")),
        # A host that never takes mail (RFC 7504)
        (521, "mx", ("failed", "5.3.2")),
        # What is wrong with a relay never fails mail
        (521, "relay", ("deferred", "4.3.2")),
        (554, "relay", ("deferred", "4.3.2")),
    ],
)
async def test_who_is_turned_away_at_the_door_waits(
    net: Network, code: int, kind: RouteKind, expected: tuple[str, str]
) -> None:
    net.failures = {"192.0.2.1": [refused(code)]}
    with pytest.raises(NoConnection) as none:
        await first(net.connections(), way(("192.0.2.1",), kind=kind))
    told = none.value.worst.outcome
    assert (told.verdict, told.status) == expected
    assert told.reply is not None
    assert told.reply.code == code


async def test_what_a_host_said_is_told_rather_than_that_another_was_silent(net: Network) -> None:
    net.failures = {"192.0.2.1": [failed("4.7.0", phase="greeting", code=421)], "192.0.2.2": [failed()]}
    with pytest.raises(NoConnection) as none:
        await first(net.connections(), way(("192.0.2.1",), ("192.0.2.2",)))
    assert none.value.worst.outcome.status == "4.7.0"
    assert none.value.worst.place.host == "mx0.test"


async def test_tls_that_fails_is_tried_once_in_clear(net: Network) -> None:
    net.failures = {"192.0.2.1": [failed(tls=True)]}
    await first(net.connections(), way(("192.0.2.1",)))
    assert net.tried == [("192.0.2.1", "opportunistic"), ("192.0.2.1", "none")]
    net.tried.clear()
    net.failures = {"192.0.2.1": [failed(tls=True), failed(tls=True)]}
    with pytest.raises(NoConnection):
        await first(net.connections(), way(("192.0.2.1",)))
    assert len(net.tried) == 2


@pytest.mark.parametrize("requirement", [TLSRequirement.encrypted(), TLSRequirement.dane((), ("mx0.test",))])
async def test_what_asks_for_tls_never_goes_in_clear(net: Network, requirement: TLSRequirement) -> None:
    net.requirement = requirement
    net.failures = {"192.0.2.1": [failed(tls=True)]}
    with pytest.raises(NoConnection):
        await first(net.connections(), way(("192.0.2.1",)))
    assert len(net.tried) == 1


async def test_a_host_that_policy_refuses_is_passed_over(net: Network) -> None:
    net.refused = {"mx0.test": HostRefused(451, "4.7.0", "not in the policy")}
    link = await first(net.connections(), way(("192.0.2.1",), ("192.0.2.2",)))
    assert link.place.address == "192.0.2.2"
    with pytest.raises(NoConnection) as none:
        await first(net.connections(), way(("192.0.2.1",)))
    assert none.value.worst.outcome.status == "4.7.0"
    # Not as if the host had said so
    assert none.value.worst.outcome.why == "not in the policy"


async def test_who_greets_with_our_name_is_us(net: Network) -> None:
    net.names = {"192.0.2.1": "us.test"}
    with pytest.raises(NoConnection) as none:
        await first(net.connections(), way(("192.0.2.1", "192.0.2.2")))
    assert (none.value.worst.outcome.verdict, none.value.worst.outcome.status) == ("failed", "5.4.6")


async def test_a_connection_is_used_again_until_it_is_worn_out(net: Network) -> None:
    connections, to = net.connections(), way(("192.0.2.1",))
    link = await first(connections, to)
    for _ in range(3):
        connections.give_back(link)
        assert await first(connections, to) is link
    assert len(net.tried) == net.policies_asked == 1
    link.connection.transactions = 100
    connections.give_back(link)
    assert _fake(link).ended
    assert await first(connections, to) is not link


async def test_a_connection_that_nobody_needs_is_ended(net: Network) -> None:
    connections, to = net.connections(), way(("192.0.2.1",))
    link = await first(connections, to)
    connections.give_back(link)
    net.clock.advance(4.9)
    assert not _fake(link).ended
    net.clock.advance(0.2)
    assert _fake(link).ended
    again = await first(connections, to)
    assert again is not link
    connections.give_back(again)
    connections.close()
    assert _fake(again).ended
    assert net.clock.getDelayedCalls() == []


async def test_one_that_the_host_has_closed_meanwhile_is_not_used(net: Network) -> None:
    connections, to = net.connections(), way(("192.0.2.1",))
    link = await first(connections, to)
    connections.give_back(link)
    _fake(link).usable = False
    assert await first(connections, to) is not link


async def test_a_connection_in_clear_is_none_for_who_asks_for_more(net: Network) -> None:
    connections = net.connections()
    link = await first(connections, way(("192.0.2.1",)))
    connections.give_back(link)
    net.requirement = TLSRequirement.encrypted()
    assert await first(connections, way(("192.0.2.1",))) is not link


def _fake(link: Link) -> FakeConnection:
    connection: Any = link.connection
    assert isinstance(connection, FakeConnection)
    return connection
