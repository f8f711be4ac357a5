"""Clients behind a proxy of ours: the PROXY header, and XCLIENT."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from relaymail.smtp.gate import ProxyGate
from relaymail.smtp.policy import Policy
from tests.smtp.memory import Conversation, Transport

PROXIES = (ip_network("192.0.2.0/24"),)
MX = Policy("mx", "mx.example.test", xclient_networks=PROXIES)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class Recorder(Protocol):
    """What is behind the gate."""

    transport: Any

    def __init__(self, client: Any) -> None:
        self.client = client
        self.received = b""

    def connectionMade(self) -> None:
        self.transport.write(b"220 hello\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data


class Inner(Factory):
    """Remembers the protocols it made."""

    def __init__(self) -> None:
        self.made: list[Recorder] = []

    def buildProtocol(self, addr: Any) -> Recorder:
        self.made.append(Recorder(addr))
        return self.made[-1]


class Gate:
    """A gate with a connection from ``host``."""

    def __init__(self, host: str) -> None:
        self.clock = Clock()
        self.inner = Inner()
        address: Any = IPv4Address("TCP", host, 1234)
        self.transport: Any = Transport(peerAddress=address)
        protocol = ProxyGate(self.inner, PROXIES, 5.0, self.clock).buildProtocol(address)
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.transport.protocol.dataReceived(data)


def test_a_client_that_is_no_proxy_is_taken_as_it_is() -> None:
    gate = Gate("198.51.100.7")
    assert gate.inner.made[0].client.host == "198.51.100.7"
    assert gate.transport.value() == b"220 hello\r\n"
    gate.send(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n")
    assert gate.inner.made[0].received.startswith(b"PROXY ")


def test_nothing_is_said_before_the_header_and_the_client_is_the_one_in_it() -> None:
    gate = Gate("192.0.2.9")
    header = b"PROXY TCP4 198.51.100.7 192.0.2.9 4321 25\r\nEHLO x\r\n"
    for n in range(20):
        gate.send(header[n : n + 1])
        assert gate.transport.value() == b""
    gate.send(header[20:])
    (session,) = gate.inner.made
    assert (session.client.host, session.client.port) == ("198.51.100.7", 4321)
    assert session.received == b"EHLO x\r\n"
    assert gate.transport.value() == b"220 hello\r\n"
    assert gate.clock.getDelayedCalls() == []
    gate.send(b"NOOP\r\n")
    assert session.received == b"EHLO x\r\nNOOP\r\n"


def test_a_proxy_that_speaks_for_itself_is_the_client() -> None:
    gate = Gate("192.0.2.9")
    gate.send(SIGNATURE + struct.pack("!BBH", 0x20, 0, 0))
    assert gate.inner.made[0].client.host == "192.0.2.9"


def test_a_proxy_without_a_header_is_cut_off() -> None:
    gate = Gate("192.0.2.9")
    gate.send(b"EHLO x\r\n")
    assert gate.transport.aborted
    silent = Gate("192.0.2.9")
    silent.clock.advance(5)
    assert silent.transport.aborted
    assert silent.inner.made == []


Talk = Callable[..., Conversation]


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    """A conversation behind EHLO; its client is 192.0.2.1."""

    def begin(policy: Policy = MX) -> Conversation:
        conversation = Conversation(policy, tmp_path)
        conversation.hello = conversation.say(b"EHLO proxy.example.org")  # type: ignore[attr-defined]
        return conversation

    return begin


def test_xclient_is_offered_to_listed_networks_only(talk: Talk) -> None:
    assert b"XCLIENT NAME ADDR PORT" in talk().hello  # type: ignore[attr-defined]
    other = talk(replace(MX, xclient_networks=(ip_network("10.0.0.0/8"),)))
    assert b"XCLIENT" not in other.hello  # type: ignore[attr-defined]
    assert other.say(b"XCLIENT ADDR=198.51.100.7") == b"502 5.5.1 Command not implemented\r\n"


def test_xclient_names_the_client_and_begins_the_session_anew(talk: Talk) -> None:
    t = talk()
    assert t.say(b"XCLIENT NAME=a.example ADDR=198.51.100.7 PORT=99 HELO=b") == (
        b"220 mx.example.test ESMTP relaymail\r\n"
    )
    assert (t.peer.address, t.peer.port) == ("198.51.100.7", 99)
    assert t.say(b"MAIL FROM:<>") == b"503 5.5.1 Send EHLO first\r\n"
    t.say(b"EHLO client.example.org")
    assert t.say(b"XCLIENT ADDR=IPV6:2001:db8::1").startswith(b"220 ")
    assert t.peer.address == "2001:db8::1"


@pytest.mark.parametrize(
    "argument",
    [b"", b"ADDR", b"ADDR=host", b"ADDR=1.2.3.4 FOO=1", b"PORT=70000", b"LOGIN=somebody", b"ADDR=a+b"],
)
def test_other_attributes_of_xclient_are_refused(talk: Talk, argument: bytes) -> None:
    t = talk()
    assert t.say(b"XCLIENT " + argument).startswith(b"501 5.5.4 ")
    assert t.peer.address == "192.0.2.1"


def test_what_the_proxy_does_not_know_stays_as_it_was(talk: Talk) -> None:
    t = talk()
    assert t.say(b"XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE]").startswith(b"220 ")
    assert t.peer.address == "192.0.2.1"


def test_xclient_is_not_allowed_in_a_transaction(talk: Talk) -> None:
    t = talk()
    t.say(b"MAIL FROM:<>")
    assert t.say(b"XCLIENT ADDR=1.2.3.4").startswith(b"503 ")
