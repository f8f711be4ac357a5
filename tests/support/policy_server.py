"""A web server for MTA-STS policies: real HTTPS on loopback, which answers as a test wants it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, ContextFactory, trustRootFromCertificates
from twisted.python.failure import Failure

from tests.smtp_tls.conftest import Issued

POLICY = "version: STSv1\r\nmode: enforce\r\nmx: mx.test\r\nmax_age: 604800\r\n"


def answer(
    policy: str | bytes = POLICY, status: str = "200 OK", content_type: str = "text/plain", *fields: str
) -> bytes:
    """A whole answer."""
    body = policy.encode() if isinstance(policy, str) else policy
    head = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def trust(root: Issued) -> Any:
    """What a client trusts who knows no authority but ``root``."""
    return trustRootFromCertificates([Certificate.loadPEM(root.pem)])


class _Contexts(ContextFactory):
    """The server's side of TLS."""

    def __init__(self, issued: Issued) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(issued.certificate)
        self._context.use_privatekey(issued.key)

    def getContext(self) -> SSL.Context:
        """Called by Twisted."""
        return self._context


class _Connection(Protocol):
    transport: Any

    def __init__(self, server: PolicyServer) -> None:
        self._server = server
        self._received = b""

    def connectionMade(self) -> None:
        self._server.open.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if b"\r\n\r\n" not in self._received:
            return
        self._server.requests.append(self._received)
        self._received = b""
        for part in self._server.respond():
            self.transport.write(part)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.open.discard(self)


class PolicyServer:
    """Listens on a free port of ``interface``; everything public may be changed at any time."""

    def __init__(self, reactor: Any, issued: Issued, interface: str = "127.0.0.1") -> None:
        self.requests: list[bytes] = []
        self.open: set[_Connection] = set()
        self.respond: Callable[[], list[bytes]] = lambda: [answer()]
        """Makes what is sent for a request, written part by part; nothing is closed behind it."""
        factory: Factory[_Connection] = Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        self._port = reactor.listenSSL(0, factory, _Contexts(issued), interface=interface)

    @property
    def port(self) -> int:
        """Where it listens."""
        found: int = self._port.getHost().port
        return found

    def publish(self, policy: str | bytes, **how: Any) -> None:
        """Answer with this from now on; ``how`` is :func:`answer`'s."""
        self.respond = lambda: [answer(policy, **how)]

    async def stop(self) -> None:
        """Close the port and what is connected."""
        await self._port.stopListening()
        for connection in list(self.open):
            connection.transport.abortConnection()
