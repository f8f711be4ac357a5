"""Fetching one MTA-STS policy by HTTPS (RFC 8461 3.3): one request, no redirects, bounded time and octets."""

# twisted.web and twisted.protocols.policies have few annotations
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.threads import deferToThreadPool
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import OK
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from relaymail.delivery.addresses import choose, is_v6, reachable
from relaymail.delivery.hosts import addresses_of
from relaymail.delivery.mta_sts_policy import LARGEST_POLICY, POLICY_PATH, policy_host
from relaymail.dns import Resolver

HTTPS_PORT: Final = 443
LIMIT: Final = 60.0
"""Seconds for all of it (RFC 8461 3.3)."""
CONNECT_TIMEOUT: Final = 10.0
MOST_ADDRESSES: Final = 4
HEAD_LIMIT: Final = 16 * 1024
"""Octets of everything in an answer that is not the policy."""
TOO_LARGE: Final = f"the answer is larger than {LARGEST_POLICY // 1024} KiB"


class FetchFailed(Exception):
    """There is no policy to be had; the text is a sentence that says why, with nothing of the peer's own."""


class PolicyFetcher:
    """Fetches policies.

    :param resolver: looks up the web servers: Twisted's own would ask the system's name servers.
    :param trust: the authorities, as ``optionsForClientTLS`` takes them; ``None``: the system's.
    :param port: of the web servers.
    :param limit: seconds for one fetch, everything included.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        reactor: Any,
        trust: Any = None,
        port: int = HTTPS_PORT,
        limit: float = LIMIT,
        random: Any = None,
    ) -> None:
        self._resolver = resolver
        self._reactor = reactor
        self._trust = trust
        self._port = port
        self._limit = limit
        self._random = random or SystemRandom()

    async def fetch(self, domain: str) -> str:
        """The text of the policy of ``domain`` (A-labels).

        :raises FetchFailed: there is none, the server does not show a certificate for its name, or it takes
            too long or too much.
        """
        connections: list[_Bounded] = []
        fetching = Deferred.fromCoroutine(self._attempt(policy_host(domain), connections))
        fetching.addTimeout(self._limit, self._reactor)
        try:
            return await fetching
        except DeferredTimeout:
            raise FetchFailed(f"not there within {self._limit:g} s") from None
        finally:
            for connection in connections:
                connection.abort()

    async def _attempt(self, host: str, connections: list[_Bounded]) -> str:
        try:
            return await self._fetch(host, connections)
        except Exception as error:
            if any(connection.too_much for connection in connections):
                raise FetchFailed(TOO_LARGE) from None
            if isinstance(error, FetchFailed):
                raise
            cause = _cause(error)
            if isinstance(cause, CancelledError):
                raise cause from None
            raise FetchFailed(_describe(cause)) from error

    async def _fetch(self, host: str, connections: list[_Bounded]) -> str:
        addresses = await self._addresses(host)
        # Reading the system's authorities takes tens of milliseconds
        options = await deferToThreadPool(
            self._reactor, self._reactor.getThreadPool(), optionsForClientTLS, host, self._trust
        )
        endpoint = _Endpoint(self._reactor, addresses, self._port, options, connections.append)
        pool = HTTPConnectionPool(self._reactor, persistent=False)
        agent = Agent.usingEndpointFactory(self._reactor, _Fixed(endpoint), pool)
        headers = Headers({b"User-Agent": [b"relaymail"], b"Accept": [b"text/plain"]})
        response: Any = await agent.request(b"GET", f"https://{host}{POLICY_PATH}".encode("ascii"), headers)
        _check(response)
        body = _Body()
        response.deliverBody(body)
        data = await body.finished
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise FetchFailed("the policy is not UTF-8") from None

    async def _addresses(self, host: str) -> list[str]:
        found = await addresses_of(self._resolver, host)
        if found.lack is not None:
            raise FetchFailed(found.why)
        mixed = self._random.sample(found.addresses, len(found.addresses))
        near = [address for address in mixed if reachable(address)]
        return choose([near or mixed], MOST_ADDRESSES)[0]


def _check(response: Any) -> None:
    if response.code != OK:
        raise FetchFailed(f"the web server answered {response.code}")
    headers: Headers = response.headers
    [media_type] = headers.getRawHeaders(b"content-type", [b""])[:1]
    if media_type.split(b";")[0].strip().lower() != b"text/plain":
        raise FetchFailed("the answer is not text/plain")
    if headers.hasHeader(b"content-encoding"):
        raise FetchFailed("the answer is compressed")


def _cause(error: BaseException) -> BaseException:
    """What really happened: Twisted's agent hides it in lists of reasons."""
    while reasons := getattr(error, "reasons", None):
        error = reasons[-1].value
    return error


def _describe(error: BaseException) -> str:
    if isinstance(error, ConnectError):
        return "no connection to the web server"
    if isinstance(error, ConnectionClosed):
        return "the web server closed the connection"
    return f"the web server cannot be used ({type(error).__module__}.{type(error).__qualname__})"


class _Body(Protocol):
    """Collects an answer's body, up to the limit."""

    transport: Any

    def __init__(self) -> None:
        self.finished: Deferred[bytes] = Deferred()
        self._parts: list[bytes] = []
        self._size = 0

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= LARGEST_POLICY:
            self._parts.append(data)
        elif not self.finished.called:
            self.finished.errback(FetchFailed(TOO_LARGE))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.finished.called:
            return
        if reason.check(ResponseDone):
            self.finished.callback(b"".join(self._parts))
        else:
            # Without a length nobody can tell the end of a policy from a cut one
            self.finished.errback(FetchFailed("the answer was cut off"))


class _Bounded(ProtocolWrapper):
    """Counts what comes, below the parser of HTTP, which takes any number of header fields."""

    transport: Any
    too_much = False
    """Whether more came than may."""
    _received = 0

    def dataReceived(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > LARGEST_POLICY + HEAD_LIMIT:
            self.too_much = True
            self.abort()
        else:
            super().dataReceived(data)

    def abort(self) -> None:
        """End the connection now; one that has ended stays so."""
        if self.transport is not None:
            self.transport.abortConnection()


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects to the first address that takes the connection, with TLS."""

    def __init__(
        self,
        reactor: Any,
        addresses: list[str],
        port: int,
        options: Any,
        connected: Callable[[_Bounded], None],
    ) -> None:
        self._reactor = reactor
        self._addresses = addresses
        self._port = port
        self._options = options
        self._connected = connected

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Called by the agent."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        wrapping: Any = WrappingFactory(factory)
        wrapping.protocol = _Bounded
        wrapping.noisy = False
        for at, address in enumerate(self._addresses):
            endpoint_type: Any = TCP6ClientEndpoint if is_v6(address) else TCP4ClientEndpoint
            plain = endpoint_type(self._reactor, address, self._port, timeout=CONNECT_TIMEOUT)
            try:
                secured: Any = wrapClientTLS(self._options, plain)
                bounded = await secured.connect(wrapping)
            except ConnectError:
                if at == len(self._addresses) - 1:
                    raise
                continue
            self._connected(bounded)
            return bounded.wrappedProtocol
        raise AssertionError("a host without addresses is not connected to")


@implementer(IAgentEndpointFactory)
class _Fixed:
    """One endpoint, whatever the agent asks for."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> _Endpoint:
        """Called by the agent."""
        return self._endpoint
