"""Listeners and sessions over real sockets: opening, limits, TLS, slow readers, draining, cutting."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread

from relaymail.smtp import reply
from relaymail.smtp.content import Content
from relaymail.smtp.listener import ESMTPFactory, ListenError, Sessions, adopt, bind, open_endpoint
from relaymail.smtp.policy import Policy, Timeouts
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.reply import Reply
from relaymail.smtp.session import Peer
from relaymail.smtp.surroundings import Surroundings
from relaymail.smtp.tls import ServerTLS, development_certificate
from tests.conftest import reactor
from tests.end_to_end.wire import LIMIT, Closed, Wire
from tests.smtp.memory import Counter, RecordingSession
from tests.support.ipv6 import needs_ipv6
from tests.support.waiting import until

MX = Policy("mx", "mx.example.test", strict_newlines=True)
SUBMISSION = Policy("submission", "mail.example.test", starttls=True, authentication=True)
SMTPS = Policy("submissions", "mail.example.test", implicit_tls=True, authentication=True)

LOOPBACK = ["127.0.0.1"]
ENVELOPE = b"MAIL FROM:<>\r\nRCPT TO:<b@example.test>\r\n"


class Server:
    """The sessions of a process, and what they took."""

    def __init__(self, folder: Path, limit: int = 100) -> None:
        self.sessions = Sessions(limit)
        self.peers: list[Peer] = []
        self.taken: list[RecordingSession] = []
        self.storing: Deferred[None] | None = None
        self.not_ready: Reply | None = None
        self._folder = folder

    def surroundings(self, policy: Policy) -> Surroundings:
        return Surroundings(
            policy=policy,
            reactor=reactor,
            new_session=self._new_session,
            new_session_id=lambda: "session",
            new_content=lambda: Content(self._folder, deferToThread, 64 * 1024),
            tls=certificate(self._folder) if policy.starttls or policy.implicit_tls else None,
            observer=Counter(),
            probes=ProbeRegistry(),
        )

    def factory(self, policy: Policy) -> ESMTPFactory:
        return ESMTPFactory(self.surroundings(policy), self.sessions, lambda: self.not_ready)

    def _new_session(self, peer: Peer) -> RecordingSession:
        session = RecordingSession()
        session.storing = self.storing
        self.peers.append(peer)
        self.taken.append(session)
        return session

    @asynccontextmanager
    async def listening(self, policy: Policy = MX) -> AsyncIterator[int]:
        """Listens on loopback; gives the port."""
        surroundings = self.surroundings(policy)
        factory = ESMTPFactory(surroundings, self.sessions, lambda: self.not_ready)
        sockets = bind("test", LOOPBACK, 0)
        # Else the kernel takes megabytes of replies that nobody reads
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        ports: list[Any] = adopt(sockets, factory, surroundings, reactor)
        try:
            yield ports[0].getHost().port
        finally:
            self.sessions.cut()
            await close(ports)
            await until(reactor, lambda: not len(self.sessions))


async def close(ports: list[Any]) -> None:
    for port in ports:
        await maybeDeferred(port.stopListening)


def certificate(folder: Path) -> ServerTLS:
    return ServerTLS(development_certificate(folder, ["mail.example.test"]))


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def connect(port: int, **options: Any) -> Wire:
    return await deferToThread(Wire, port, **options)


async def said(act: Callable[..., Any], *arguments: object) -> Any:
    """What a blocking call of the client comes to."""
    return await deferToThread(act, *arguments)


# Opening


@needs_ipv6
async def test_sockets_are_bound_first_and_served_later(server: Server) -> None:
    sockets = bind("mx", ["127.0.0.1", "::1"], 0)
    names = [listening.getsockname() for listening in sockets]
    assert [listening.family for listening in sockets] == [socket.AF_INET, socket.AF_INET6]
    early = await said(socket.create_connection, names[0][:2])
    ports = adopt(sockets, server.factory(MX), server.surroundings(MX), reactor)
    assert await said(early.recv, 100) == b"220 mx.example.test ESMTP relaymail\r\n"
    late = await connect(names[1][1], host="::1")
    await until(reactor, lambda: len(server.peers) == 2)
    assert [peer.address for peer in server.peers] == ["127.0.0.1", "::1"]
    early.close()
    late.close()
    await until(reactor, lambda: len(server.sessions) == 0)
    await close(ports)


def test_a_port_that_is_taken_is_named_and_nothing_stays_open() -> None:
    (taken,) = bind("mx", ["127.0.0.2"], 0)
    port = taken.getsockname()[1]
    with (
        taken,
        pytest.raises(ListenError, match=rf"^submission: cannot listen on 127.0.0.2 port {port}: another"),
    ):
        bind("submission", ["127.0.0.1", "127.0.0.2"], port)
    for listening in bind("submission", ["127.0.0.1", "127.0.0.2"], port):
        listening.close()


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(ListenError, match=r"^mx: cannot listen on 192\.0\.2\.1 port 0: "):
        bind("mx", ["192.0.2.1"], 0)


def test_a_machine_without_ipv6_listens_on_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without)
    (listening,) = bind("mx", ["127.0.0.1", "::"], 0)
    listening.close()
    with pytest.raises(ListenError, match="none of the addresses :: is on this machine"):
        bind("mx", ["::"], 0)


async def test_a_unix_socket_is_an_endpoint_too(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    port = await open_endpoint(server.factory(MX), server.surroundings(MX), f"unix:{path}", reactor)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(LIMIT)
    client.connect(str(path))
    assert await said(client.recv, 100) == b"220 mx.example.test ESMTP relaymail\r\n"
    assert server.peers[0].address == "127.0.0.1"
    client.close()
    await until(reactor, lambda: len(server.sessions) == 0)
    await close([port])


@pytest.mark.parametrize(
    "description", ["", "nonsense:1", "tcp:x", "systemd:domain=INET:name=none", "tcp:0:interface=192.0.2.1"]
)
async def test_an_endpoint_that_does_not_open_is_named(server: Server, description: str) -> None:
    with pytest.raises(ListenError, match=r"^mx: cannot listen on "):
        await open_endpoint(server.factory(MX), server.surroundings(MX), description, reactor)


# Limits


def crowded(server: Server) -> bool:
    return server.sessions.crowded


async def test_one_connection_too_many_is_told_and_closed(tmp_path: Path) -> None:
    server = Server(tmp_path, limit=2)
    async with server.listening() as port:
        first, second = await connect(port), await connect(port)
        third = await connect(port)
        assert third.greeting is not None
        assert third.greeting.start == "421 4.3.2"
        assert await said(third.rest) == b""
        first.close()
        await until(reactor, lambda: len(server.sessions) == 1)
        fourth = await connect(port)
        assert fourth.greeting is not None
        assert fourth.greeting.code == 220
        assert (await said(second.command, "NOOP")).code == 250


async def test_idle_clients_have_less_time_while_most_connections_are_used(tmp_path: Path) -> None:
    server = Server(tmp_path, limit=5)
    policy = replace(MX, timeouts=Timeouts(command_under_load=2.0))
    async with server.listening(policy) as port:
        idle = [await connect(port) for _ in range(4)]
        assert not crowded(server)
        last = await connect(port)
        assert crowded(server)
        for wire in [*idle, last]:
            assert (await said(wire.reply)).start == "421 4.4.2"
        await until(reactor, lambda: not len(server.sessions))
        assert not crowded(server)


async def test_while_nothing_can_be_stored_the_greeting_says_so(server: Server) -> None:
    server.not_ready = reply.NOT_READY
    async with server.listening() as port:
        wire = await connect(port)
        assert wire.greeting is not None
        assert wire.greeting.start == "421 4.3.2"


# Slow and half-closed clients


def read_little(wire: Wire) -> None:
    """Have the kernel take few replies that nobody reads yet, whatever it would on this machine."""
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)


@pytest.mark.parametrize("policy", [MX, SMTPS, SUBMISSION])
async def test_a_client_that_reads_late_gets_every_reply(server: Server, policy: Policy) -> None:
    lines = 10_000
    async with server.listening(policy) as port:
        wire = await connect(port, greet=not policy.implicit_tls)
        read_little(wire)
        if policy.implicit_tls:
            await said(wire.wrap)
            await said(wire.reply)
        if policy.starttls:
            await said(wire.hello)
            await said(wire.starttls)
        await said(wire.send, b"HELP\r\n" * lines + b"QUIT\r\n")
        session = next(iter(server.sessions._live))
        await until(reactor, lambda: session._output_blocked)
        rest = await said(wire.rest)
        assert rest.count(b"\r\n") == lines + 1
        assert rest.endswith(b"221 2.0.0 Bye\r\n")


async def test_a_client_that_half_closes_behind_a_flood_gets_every_reply(server: Server) -> None:
    async with server.listening() as port:
        wire = await connect(port)
        read_little(wire)
        await said(wire.hello)
        await said(wire.send, b"HELP\r\n" * 10_000 + ENVELOPE + b"DATA\r\ntext\r\n.\r\n")
        wire.socket.shutdown(socket.SHUT_WR)
        session = next(iter(server.sessions._live))
        await until(reactor, lambda: session._output_blocked)
        rest = await said(wire.rest)
        assert rest.count(b"214 ") == 10_000
        assert rest.endswith(b"250 2.0.0 Ok: queued as id1\r\n")


@pytest.mark.parametrize("policy", [MX, SUBMISSION])
async def test_a_spooled_message_comes_in_whole(server: Server, policy: Policy) -> None:
    text = b"".join(b"%070d\r\n" % n for n in range(50_000))
    async with server.listening(policy) as port:
        wire = await connect(port)
        await said(wire.hello)
        if policy.starttls:
            await said(wire.starttls)
        await said(wire.send, ENVELOPE + b"DATA\r\n" + text + b".\r\nQUIT\r\n")
        rest = await said(wire.rest)
        assert [line[:3] for line in rest.splitlines()] == [b"250", b"250", b"354", b"250", b"221"]
        assert server.taken[0].messages == [("", ["b@example.test"], text)]


# TLS


async def test_a_client_that_never_begins_its_handshake_is_cut(server: Server) -> None:
    async with server.listening(replace(SMTPS, timeouts=Timeouts(handshake=0.1))) as port:
        wire = await connect(port, greet=False)
        assert await said(wire.rest) == b""


async def test_a_starttls_without_a_handshake_is_cut(server: Server) -> None:
    async with server.listening(replace(SUBMISSION, timeouts=Timeouts(handshake=0.1))) as port:
        wire = await connect(port)
        await said(wire.hello)
        await said(wire.command, "STARTTLS")
        assert await said(wire.rest) == b""


async def test_a_handshake_ends_under_draining_and_is_told_so(server: Server) -> None:
    async with server.listening(SMTPS) as port:
        wire = await connect(port, greet=False)
        await until(reactor, lambda: len(server.sessions) == 1)
        drained = Deferred.fromCoroutine(server.sessions.drain(60, reactor))
        await said(wire.wrap)
        assert (await said(wire.reply)).start == "421 4.3.2"
        wire.close()
        await drained


# The end


async def test_draining_tells_idle_clients_and_lets_a_message_come_to_its_end(server: Server) -> None:
    async with server.listening() as port:
        idle, busy = await connect(port), await connect(port)
        await said(busy.hello)
        await said(busy.send, ENVELOPE + b"DATA\r\ntext\r\n")
        for _ in range(3):
            await said(busy.reply)
        drained = Deferred.fromCoroutine(server.sessions.drain(60, reactor))
        assert (await said(idle.reply)).start == "421 4.3.2"
        late = await connect(port)
        assert late.greeting is not None
        assert late.greeting.start == "421 4.3.2"
        assert not drained.called
        await said(busy.send, b".\r\n")
        assert (await said(busy.reply)).start == "250 2.0.0"
        assert (await said(busy.reply)).start == "421 4.3.2"
        await drained


async def test_what_does_not_end_in_time_is_cut_without_a_reply(server: Server) -> None:
    async with server.listening() as port:
        wire = await connect(port)
        await said(wire.hello)
        await said(wire.send, ENVELOPE + b"DATA\r\ntext\r\n")
        for _ in range(3):
            await said(wire.reply)
        await server.sessions.drain(0.05, reactor)
        with pytest.raises(Closed):
            await said(wire.reply)
        assert server.taken[0].messages == []


async def test_draining_nobody_is_done_at_once(server: Server) -> None:
    await server.sessions.drain(30, reactor)


async def test_a_message_is_stored_although_its_client_is_cut_off(server: Server) -> None:
    server.storing = Deferred()
    async with server.listening() as port:
        wire = await connect(port)
        await said(wire.hello)
        await said(wire.send, ENVELOPE + b"DATA\r\ntext\r\n.\r\n")
        session = next(iter(server.sessions._live))
        await until(reactor, lambda: session._busy)
        server.sessions.cut()
        await until(reactor, lambda: not len(server.sessions))
        server.storing.callback(None)
        assert len(server.taken[0].messages) == 1
