"""A real DNS server on loopback, UDP and TCP on one port, that answers as a test wants it to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol, Factory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure

Behaviour = Callable[[dns.message.Message, str], bytes | None]
"""From a query and ``"udp"`` or ``"tcp"`` to the bytes of the answer; ``None`` is silence."""

SOA = "ns.example.test. hostmaster.example.test. 1 3600 600 86400 60"


def answer(*records: str, ttl: int = 300, authentic: bool = False) -> Behaviour:
    """Answer with ``records`` (``"10 mx.example.test."``); none: NOERROR without data."""

    def behave(query: dns.message.Message, transport: str) -> bytes:
        response = dns.message.make_response(query)
        question = query.question[0]
        if records:
            response.answer.append(dns.rrset.from_text(question.name, ttl, "IN", question.rdtype, *records))
        else:
            response.authority.append(_soa())
        if authentic:
            response.flags |= dns.flags.AD
        return response.to_wire(max_size=65535)

    return behave


def code(rcode: str) -> Behaviour:
    """Answer with an error code, such as ``"SERVFAIL"``."""

    def behave(query: dns.message.Message, transport: str) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.from_text(rcode))
        if rcode == "NXDOMAIN":
            response.authority.append(_soa())
        return response.to_wire()

    return behave


def silence(query: dns.message.Message, transport: str) -> None:
    """Say nothing."""


def garbage(query: dns.message.Message, transport: str) -> bytes:
    """Answer with what is no DNS message."""
    return b"\xff" * 7


def wrong_id(query: dns.message.Message, transport: str) -> bytes:
    """Answer a question with another id: a blind forger's guess."""
    query.id ^= 1
    forged = answer("10 forged.example.test.")(query, transport)
    assert forged is not None
    return forged


def truncated(over_tcp: Behaviour) -> Behaviour:
    """Say over UDP that the answer does not fit, and give it over TCP."""

    def behave(query: dns.message.Message, transport: str) -> bytes | None:
        if transport == "tcp":
            return over_tcp(query, transport)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.TC
        return response.to_wire()

    return behave


def _soa() -> dns.rrset.RRset:
    return dns.rrset.from_text(dns.name.root, 60, "IN", "SOA", SOA)


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, server: DNSServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._server.asker = addr
        reply = self._server.reply(datagram, "udp")
        if reply is not None:
            port: Any = self.transport
            port.write(reply, addr)


class _Stream(Int16StringReceiver):
    def __init__(self, server: DNSServer) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.streams.add(self)

    def stringReceived(self, string: bytes) -> None:
        reply = self._server.reply(string, "tcp")
        if reply is not None:
            self.sendString(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.streams.discard(self)


class DNSServer:
    """Listens on ``interface``; ``behaviour`` may be changed at any time."""

    def __init__(self, reactor: Any, behaviour: Behaviour = silence, interface: str = "127.0.0.1") -> None:
        self._reactor = reactor
        self.behaviour = behaviour
        self.interface = interface
        self.queries: list[tuple[str, str, str]] = []
        """Transport, name and type of each query so far."""
        self.messages: list[dns.message.Message] = []
        self.streams: set[_Stream] = set()
        self.asker: Any = None
        """Whom the last query over UDP came from."""
        self._ports: Sequence[Any] = ()

    def start(self) -> None:
        """Listen for UDP and TCP on the same free port."""
        for _ in range(20):
            stream = self._reactor.listenTCP(0, _quiet(lambda: _Stream(self)), interface=self.interface)
            try:
                datagrams = self._reactor.listenUDP(
                    stream.getHost().port, _Datagrams(self), interface=self.interface, maxPacketSize=65535
                )
            except CannotListenError:
                stream.stopListening()
                continue
            self._ports = (stream, datagrams)
            return
        raise AssertionError("no port is free for both UDP and TCP")

    @property
    def address(self) -> str:
        """``address:port``, as the settings have it."""
        port = self._ports[0].getHost().port
        return f"[{self.interface}]:{port}" if ":" in self.interface else f"{self.interface}:{port}"

    async def stop(self) -> None:
        """Close the ports and what is connected."""
        for port in self._ports:
            await port.stopListening()
        for stream in list(self.streams):
            transport: Any = stream.transport
            transport.abortConnection()

    def send_datagram(self, wire: bytes | None) -> None:
        """Send ``wire`` to the last asker, behind whatever it was answered."""
        self._ports[1].write(wire, self.asker)

    def reply(self, wire: bytes, transport: str) -> bytes | None:
        """What to answer to ``wire``."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.queries.append((transport, question.name.to_text(), dns.rdatatype.to_text(question.rdtype)))
        self.messages.append(query)
        return self.behaviour(query, transport)


def _quiet(build: Callable[[], _Stream]) -> Factory[_Stream]:
    factory: Factory[_Stream] = Factory.forProtocol(build)
    factory.noisy = False
    return factory
