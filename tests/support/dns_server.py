"""A DNS server with zones that a test writes, and may rewrite while it runs: UDP and TCP on one port.

It answers as a validating resolver of the test's own network would: recursively, with CNAMEs followed within
what it knows, and with AD where the test says that a name is signed. It runs on the reactor, or in a thread
of its own for tests whose host is another process.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dns.exception
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

SOA = "ns.example.test. hostmaster.example.test. 1 3600 600 86400 60"
LONGEST_CHAIN = 16
TTL = 0
"""Answers are not kept by who asked, so that a change is seen at once."""


@dataclass
class Entry:
    """What is said about one name and type."""

    records: tuple[str, ...] = ()
    rcode: str = "NOERROR"
    ttl: int = TTL
    signed: bool = False
    silent: bool = False
    """Never answer."""
    delay: float = 0.0
    """Seconds before the answer."""
    truncated: bool = False
    """Over UDP say only that it does not fit."""


@dataclass
class Zones:
    """Everything the server knows. Safe to change at any time, from any thread.

    A name without any entry does not exist, and neither does the type of one that is not there: NXDOMAIN and
    NODATA come of themselves.
    """

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    signed: set[str] = field(default_factory=set)
    """Zones whose denials are signed: AD on NXDOMAIN and NODATA at and below these names."""
    fallback: Entry | None = None
    """For every name and type without an entry; ``None``: NXDOMAIN or NODATA."""

    def set(self, name: str, rdtype: str, *records: str, **how: Any) -> None:
        """Let ``name`` have these records (``"10 mx.example.test."``); ``how`` as :class:`Entry` has it.

        No records: the name exists, without this type.
        """
        self.entries[_key(name), rdtype.upper()] = Entry(records, **how)

    def mx(self, domain: str, *hosts: str, signed: bool = False) -> None:
        """``mx("example.test", "10 a.example.test", …)``; no hosts: a null MX (RFC 7505)."""
        self.set(domain, "MX", *[f"{host}." for host in hosts] or ["0 ."], signed=signed)

    def a(self, name: str, *addresses: str, signed: bool = False) -> None:
        """IPv4 and IPv6 addresses, each where it belongs; the other type is set to nothing."""
        v6 = [address for address in addresses if ":" in address]
        self.set(name, "A", *[address for address in addresses if ":" not in address], signed=signed)
        self.set(name, "AAAA", *v6, signed=signed)

    def cname(self, name: str, target: str, *, signed: bool = False) -> None:
        """Make ``name`` an alias."""
        self.set(name, "CNAME", f"{target}.", signed=signed)

    def fail(self, name: str, rdtype: str, rcode: str = "SERVFAIL") -> None:
        """Answer with an error code."""
        self.entries[_key(name), rdtype.upper()] = Entry(rcode=rcode)

    def silence(self, name: str, rdtype: str) -> None:
        """Do not answer."""
        self.entries[_key(name), rdtype.upper()] = Entry(silent=True)

    def forget(self, name: str, *rdtypes: str) -> None:
        """Know nothing of ``name`` any more, or of these types of it."""
        for key in [key for key in self.entries if key[0] == _key(name)]:
            if not rdtypes or key[1] in rdtypes:
                del self.entries[key]


def _key(name: str) -> str:
    return name.rstrip(".").lower()


@dataclass(frozen=True)
class _Reply:
    wire: bytes | None
    delay: float


class Responder:
    """Makes the answer to a query, whatever way it came."""

    def __init__(self, zones: Zones) -> None:
        self.zones = zones
        self.queries: list[tuple[str, str, str]] = []
        """Transport, name (no last dot) and type of each query so far."""

    def asked(self, name: str, rdtype: str) -> int:
        """How often that was asked."""
        return sum(1 for _, *question in list(self.queries) if question == [_key(name), rdtype])

    def reply(self, wire: bytes, transport: str) -> _Reply:
        """What to answer, and when; no bytes: nothing."""
        try:
            query = dns.message.from_wire(wire)
            question = query.question[0]
        except (dns.exception.DNSException, IndexError):
            return _Reply(None, 0.0)
        name, rdtype = _key(question.name.to_text()), dns.rdatatype.to_text(question.rdtype)
        self.queries.append((transport, name, rdtype))
        response = dns.message.make_response(query, recursion_available=True)
        last, signed = self._follow(response, name, rdtype)
        if last.silent:
            return _Reply(None, 0.0)
        if signed:
            response.flags |= dns.flags.AD
        if last.truncated and transport == "udp":
            response.flags |= dns.flags.TC
            response.answer.clear()
        size = max(512, query.payload) if transport == "udp" else 65535
        return _Reply(_to_wire(response, size), last.delay)

    def _follow(self, response: dns.message.Message, name: str, rdtype: str) -> tuple[Entry, bool]:
        """Put the records in, through all aliases; returns the last entry and whether all of it is signed."""
        signed = True
        for _ in range(LONGEST_CHAIN):
            entry = self._entry(name, rdtype)
            if entry is None and rdtype != "CNAME" and (alias := self._entry(name, "CNAME")) is not None:
                if alias.silent or alias.rcode != "NOERROR":
                    response.set_rcode(dns.rcode.from_text(alias.rcode))
                    return alias, False
                _add(response, name, "CNAME", alias)
                signed = signed and alias.signed
                name = _key(alias.records[0])
                continue
            found = entry or self._nothing(name)
            response.set_rcode(dns.rcode.from_text(found.rcode))
            if found.records:
                _add(response, name, rdtype, found)
            elif found.rcode in ("NOERROR", "NXDOMAIN"):
                response.authority.append(dns.rrset.from_text(dns.name.root, TTL, "IN", "SOA", SOA))
            return found, signed and (found.signed or (not found.records and self._denies(name)))
        response.set_rcode(dns.rcode.SERVFAIL)
        return Entry(rcode="SERVFAIL"), False

    def _entry(self, name: str, rdtype: str) -> Entry | None:
        return self.zones.entries.get((name, rdtype))

    def _nothing(self, name: str) -> Entry:
        if self.zones.fallback is not None:
            return self.zones.fallback
        below = any(known == name or known.endswith("." + name) for known, _ in list(self.zones.entries))
        return Entry(rcode="NOERROR" if below else "NXDOMAIN")

    def _denies(self, name: str) -> bool:
        return any(name == zone or name.endswith("." + zone) for zone in self.zones.signed)


def _add(response: dns.message.Message, name: str, rdtype: str, entry: Entry) -> None:
    owner = dns.name.from_text(name)
    response.answer.append(dns.rrset.from_text(owner, entry.ttl, "IN", rdtype, *entry.records))


def _to_wire(response: dns.message.Message, size: int) -> bytes:
    try:
        return response.to_wire(max_size=size)
    except dns.exception.TooBig:
        response.flags |= dns.flags.TC
        response.answer.clear()
        return response.to_wire(max_size=size)


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, server: DNSServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        port: Any = self.transport
        self._server.answer(datagram, "udp", lambda wire: port and port.write(wire, addr))


class _Stream(Int16StringReceiver):
    def __init__(self, server: DNSServer) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.streams.add(self)

    def stringReceived(self, string: bytes) -> None:
        self._server.answer(string, "tcp", self.sendString)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.streams.discard(self)


class DNSServer(Responder):
    """The server on a reactor."""

    def __init__(self, reactor: Any, zones: Zones | None = None, interface: str = "127.0.0.1") -> None:
        super().__init__(zones or Zones())
        self._reactor = reactor
        self._interface = interface
        self._ports: Sequence[Any] = ()
        self._delayed: set[Any] = set()
        self.streams: set[_Stream] = set()

    def start(self) -> None:
        """Listen for UDP and TCP on the same free port."""
        factory: Factory[_Stream] = Factory.forProtocol(lambda: _Stream(self))
        factory.noisy = False
        for _ in range(20):
            stream = self._reactor.listenTCP(0, factory, interface=self._interface)
            try:
                datagrams = self._reactor.listenUDP(
                    stream.getHost().port, _Datagrams(self), interface=self._interface, maxPacketSize=65535
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
        return _place(self._interface, self._ports[0].getHost().port)

    def answer(self, wire: bytes, transport: str, send: Callable[[bytes], object]) -> None:
        """Answer now or later, or not."""
        reply = self.reply(wire, transport)
        if reply.wire is None:
            return
        if not reply.delay:
            send(reply.wire)
            return
        late = self._reactor.callLater(reply.delay, send, reply.wire)
        self._delayed.add(late)

    async def stop(self) -> None:
        """Close the ports and what is connected."""
        for late in self._delayed:
            if late.active():
                late.cancel()
        for port in self._ports:
            await port.stopListening()
        for stream in list(self.streams):
            transport: Any = stream.transport
            transport.abortConnection()


class ThreadedDNSServer(Responder):
    """The server in a thread, for a host that is another process: nothing here needs a reactor."""

    def __init__(self, zones: Zones | None = None, interface: str = "127.0.0.1") -> None:
        super().__init__(zones or Zones())
        self._interface = interface
        self._stream, self._datagrams = _bind(interface)
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.address = _place(interface, self._stream.getsockname()[1])
        """``address:port``, as the settings have it."""

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._stop_writer.send(b"x")
        self._thread.join()
        for one in (self._stream, self._datagrams, self._stop_reader, self._stop_writer):
            one.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._stop_reader, self._stream, self._datagrams], [], [])
            if self._stop_reader in ready:
                return
            if self._datagrams in ready:
                wire, asker = self._datagrams.recvfrom(65535)
                self._send(self.reply(wire, "udp"), partial(self._tell, asker))
            if self._stream in ready:
                connection, _ = self._stream.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _tell(self, asker: Any, wire: bytes) -> None:
        self._datagrams.sendto(wire, asker)

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        with connection, connection.makefile("rb") as lines:
            try:
                while length := lines.read(2):
                    reply = self.reply(lines.read(int.from_bytes(length, "big")), "tcp")
                    self._send(reply, lambda out: connection.sendall(len(out).to_bytes(2, "big") + out))
            except OSError:
                return

    def _send(self, reply: _Reply, send: Callable[[bytes], object]) -> None:
        if reply.wire is None:
            return
        if reply.delay:
            threading.Timer(reply.delay, self._send, [_Reply(reply.wire, 0.0), send]).start()
            return
        try:
            send(reply.wire)
        except OSError:
            return


def _bind(interface: str) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    for _ in range(20):
        stream = socket.socket(family, socket.SOCK_STREAM)
        stream.bind((interface, 0))
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        try:
            datagrams.bind((interface, stream.getsockname()[1]))
        except OSError:
            stream.close()
            datagrams.close()
            continue
        stream.listen(16)
        return stream, datagrams
    raise AssertionError("no port is free for both UDP and TCP")


def _place(interface: str, port: int) -> str:
    return f"[{interface}]:{port}" if ":" in interface else f"{interface}:{port}"
