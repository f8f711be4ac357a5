"""Mail to real programs: Postfix's smtp-sink with its failure modes, and our own listener."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory

from relaymail.smtp.certificate import self_signed
from relaymail.smtp.client import ClientConnection, ConnectFailed, TLSRequirement, TrustRoots, connect
from relaymail.smtp.content import Content
from relaymail.smtp.policy import Policy
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.server import ESMTPServer
from relaymail.smtp.surroundings import Surroundings
from relaymail.smtp.tls import ServerTLS
from tests.conftest import reactor
from tests.smtp.memory import Company, Counter, RecordingSession
from tests.smtp_client.sending import BODY, in_parts, mail
from tests.support.polling import LIMIT
from tests.support.ports import free_port
from tests.support.waiting import pause, until

SINK = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin:/usr/lib/postfix/sbin")

needs_sink = pytest.mark.skipif(SINK is None, reason="Postfix's smtp-sink is not installed")


@contextmanager
def sink(*options: str) -> Iterator[int]:
    """smtp-sink with these options; its port."""
    assert SINK is not None
    port = free_port()
    user = ("-u", "nobody") if Path("/proc/self").stat().st_uid == 0 else ()
    process = subprocess.Popen([SINK, *user, *options, f"127.0.0.1:{port}", "100"])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT)


async def open_to(port: int) -> ClientConnection:
    """Connect to a program that may just be starting."""
    tls = TLSRequirement.opportunistic()
    end = reactor.seconds() + LIMIT
    while True:
        try:
            return await connect(reactor, "127.0.0.1", port, host="sink.test", helo="relay.test", tls=tls)
        except ConnectFailed as failure:
            if failure.phase != "connect" or reactor.seconds() > end:
                raise
        await pause(reactor, 0.02)


@needs_sink
class TestSmtpSink:
    @pytest.mark.parametrize(
        ("options", "missing"),
        [
            ((), ()),
            (("-p",), ("PIPELINING",)),
            (("-8",), ("8BITMIME",)),
            (("-N",), ("DSN",)),
            (("-E",), ("ENHANCEDSTATUSCODES",)),
            (("-F", "-C"), ("XFORWARD", "XCLIENT")),
            (("-e",), ("PIPELINING", "8BITMIME", "DSN")),
        ],
    )
    async def test_takes_mail_whatever_it_offers(
        self, options: tuple[str, ...], missing: tuple[str, ...]
    ) -> None:
        with sink(*options) as port:
            connection = await open_to(port)
            assert not any(map(connection.capabilities.offers, missing))
            for _ in range(3):
                outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
                assert [outcome.verdict for outcome in outcomes] == ["delivered"] * 2
                assert outcomes[0].dsn_taken_over == connection.capabilities.offers("DSN")
            parts = in_parts([b".\r\n" * 30_000] * 20)
            (outcome,) = await connection.send(mail(), parts)
            assert outcome.verdict == "delivered"
            connection.quit()

    async def test_says_helo_where_ehlo_is_unknown(self) -> None:
        with sink("-f", "EHLO") as port:
            connection = await open_to(port)
            assert not connection.capabilities.extended
            (outcome,) = await connection.send(mail(), BODY)
            assert outcome.verdict == "delivered"

    @pytest.mark.parametrize("pipelining", [True, False])
    @pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
    @pytest.mark.parametrize(
        ("mode", "verdict"), [("-r", "deferred"), ("-f", "failed"), ("-q", "deferred"), ("-Q", "deferred")]
    )
    async def test_refuses_or_leaves(self, mode: str, command: str, verdict: str, pipelining: bool) -> None:
        with sink(mode, command, *([] if pipelining else ["-p"])) as port:
            connection = await open_to(port)
            outcomes = await connection.send(mail("a@example.test", "b@example.test"), BODY)
            assert [outcome.verdict for outcome in outcomes] == [verdict] * 2
            assert [outcome.status[0] for outcome in outcomes] == ["5" if verdict == "failed" else "4"] * 2
            assert [outcome.in_doubt for outcome in outcomes] == [(mode, command) == ("-q", ".")] * 2
            assert connection.usable == (mode in ("-r", "-f"))
            if connection.usable:
                # It refuses again, in step
                outcomes = await connection.send(mail(), BODY)
                assert outcomes[0].verdict == verdict

    @pytest.mark.parametrize(
        ("mode", "permanent"), [("-r", False), ("-f", True), ("-q", False), ("-Q", False)]
    )
    async def test_does_not_want_us_at_all(self, mode: str, permanent: bool) -> None:
        with sink(mode, "CONNECT") as port:
            with pytest.raises(ConnectFailed) as raised:
                await open_to(port)
            assert raised.value.phase == "greeting"
            assert raised.value.permanent == permanent

    async def test_answers_late(self) -> None:
        with sink("-W", ".:1") as port:
            connection = await open_to(port)
            (outcome,) = await connection.send(mail(), BODY)
            assert outcome.verdict == "delivered"


@asynccontextmanager
async def listener(folder: Path, tls: ServerTLS) -> AsyncIterator[tuple[int, RecordingSession, list[Any]]]:
    """Our own listener with STARTTLS: its port, the session behind it, and who connected."""
    session = RecordingSession()
    peers: list[Any] = []

    def new_session(peer: Any) -> RecordingSession:
        peers.append(peer)
        return session

    around = Surroundings(
        policy=Policy("mx", "mx.example.test", starttls=True),
        reactor=reactor,
        new_session=new_session,
        new_session_id=lambda: "session",
        new_content=lambda: Content(folder, maybeDeferred, 256 * 1024),
        tls=tls,
        observer=Counter(),
        probes=ProbeRegistry(),
        clients=None,
    )
    company = Company()

    class Sessions(Factory[ESMTPServer]):
        noisy = False

        def buildProtocol(self, address: Any) -> ESMTPServer:
            return ESMTPServer(around, None, company, (address.host, address.port))

    factory: Any = Sessions()
    listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
    try:
        yield listening.getHost().port, session, peers
    finally:
        await listening.stopListening()
        await until(reactor, lambda: len(company.gone) == len(peers))


PEM = b"".join(self_signed(["mx.example.test"]))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_bytes(PEM)
    return path


async def test_our_own_listener_takes_what_we_send(tmp_path: Path, certificate: Path) -> None:
    roots = TrustRoots.from_pem(PEM)
    async with listener(tmp_path, ServerTLS(certificate)) as (port, session, peers):
        wanted = TLSRequirement.verified(["mx.example.test"], roots)
        connection = await connect(
            reactor, "127.0.0.1", port, host="mx.example.test", helo="relay.test", tls=wanted
        )
        assert connection.tls is not None
        assert connection.tls.verified_by == "roots"
        assert peers[0].tls is not None
        assert connection.capabilities.offers("CHUNKING")
        large = b"".join(b".%d\r\n" % n for n in range(200_000))
        for body in (BODY, b".\r\n", b"", large):
            cut = in_parts([body[at : at + 777_777] for at in range(0, len(body), 777_777)])
            for form in (body, cut):
                (outcome,) = await connection.send(mail(size=len(body)), form)
                assert outcome.verdict == "delivered"
                assert session.messages.pop() == ("sender@example.org", ["user@example.test"], body)
        binary = b"\r\n.\r\n\0\n\r" * 100_000
        (outcome,) = await connection.send(mail(size=len(binary), binary=True), binary)
        assert outcome.verdict == "delivered"
        assert session.messages.pop()[2] == binary
        connection.quit()


async def test_our_own_listener_refuses_and_goes_on(tmp_path: Path, certificate: Path) -> None:
    async with listener(tmp_path, ServerTLS(certificate)) as (port, session, _):
        connection = await open_to(port)
        session.refuse_recipients = True
        (outcome,) = await connection.send(mail(), BODY)
        assert (outcome.verdict, outcome.status) == ("failed", "5.1.1")
        session.refuse_recipients = False
        (outcome,) = await connection.send(mail(), BODY)
        assert outcome.verdict == "delivered"
        assert outcome.reply is not None
        assert "queued as" in str(outcome.reply)
        connection.quit()
