"""Connections to the API: kept open, bounded in what they swallow, and gone when they are told to be."""

# twisted.web and twisted.protocols.policies have few annotations
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IResponse,
)
from zope.interface import implementer

ANSWER_LIMIT = 64 * 1024
"""Octets of an answer, head and body together, that are read before the connection is cut."""

CONNECT_TIMEOUT = 5.0
IDLE_TIMEOUT = 15
"""Seconds an idle connection is kept: less than the limit of most servers, so that it is us who close it."""

CLOSE_TIMEOUT = 2.0
"""Seconds for an orderly close: a peer that does not answer TLS's close_notify would hold it for ever."""


class _BoundedConnection(ProtocolWrapper):
    """Counts what comes back for each request, below HTTP's parser: heads are as bounded as bodies."""

    transport: Any
    _received = 0
    _closing: Any = None

    def write(self, data: bytes) -> None:
        self._received = 0
        super().write(data)

    def writeSequence(self, data: list[bytes]) -> None:
        self._received = 0
        super().writeSequence(data)

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > ANSWER_LIMIT:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)

    def loseConnection(self) -> None:
        super().loseConnection()
        if self._closing is None:
            factory: Any = self.factory
            self._closing = factory.clock.callLater(CLOSE_TIMEOUT, self._abort)

    def _abort(self) -> None:
        self._closing = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        super().connectionLost(reason)


class _BoundedFactory(WrappingFactory):
    protocol = _BoundedConnection
    noisy = False

    def __init__(self, clock: Any, wrapped: IProtocolFactory) -> None:
        super().__init__(wrapped)
        self.clock = clock


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    """Connects through another endpoint and puts a :class:`_BoundedConnection` around the protocol."""

    def __init__(self, clock: Any, inner: Any) -> None:
        self._clock = clock
        self._inner = inner

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        connected: Deferred[Any] = self._inner.connect(_BoundedFactory(self._clock, protocolFactory))
        return connected.addCallback(lambda wrapper: wrapper.wrappedProtocol)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    def __init__(self, reactor: Any, trust: Any) -> None:
        self._reactor = reactor
        self._trust = trust
        self._known: dict[tuple[bytes, bytes, int], Any] = {}

    def endpointForURI(self, uri: URI) -> Any:
        """The agent asks for each request; a new TLS context reads all the system's authorities."""
        key = (uri.scheme, uri.host, uri.port)
        if key not in self._known:
            self._known[key] = self._make(uri)
        return self._known[key]

    def _make(self, uri: URI) -> _BoundedEndpoint:
        host: Any = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout=CONNECT_TIMEOUT)
        if uri.scheme != b"https":
            return _BoundedEndpoint(self._reactor, host)
        creator = self._trust.creatorForNetloc(uri.host, uri.port)
        return _BoundedEndpoint(self._reactor, wrapClientTLS(creator, host))


@implementer(IAgent)
class _PlainAgent:
    """Keeps content codings out: treq unpacks gzip whoever asked, and 64 KiB of it can hold 64 MiB."""

    def __init__(self, inner: Agent) -> None:
        self._inner = inner

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        if headers is not None:
            headers.removeHeader(b"accept-encoding")
        return self._inner.request(method, uri, headers, bodyProducer).addCallback(_without_coding)


def _without_coding(response: IResponse) -> IResponse:
    response.headers.removeHeader(b"content-encoding")
    return response


class Connections:
    """The pool of kept connections and the agent that uses it.

    ``trust`` says which certificates are good; by default those of the system's authorities for the host.
    """

    def __init__(self, reactor: Any, keep: int, trust: Any = None) -> None:
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = keep
        self._pool.cachedConnectionTimeout = IDLE_TIMEOUT
        self._pool.retryAutomatically = False
        endpoints = _Endpoints(reactor, trust or BrowserLikePolicyForHTTPS())
        self.agent: Any = _PlainAgent(Agent.usingEndpointFactory(reactor, endpoints, self._pool))

    async def close(self) -> None:
        """Close the idle connections; done within a few seconds whatever the peer does."""
        await self._pool.closeCachedConnections()
