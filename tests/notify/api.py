"""The API as the notifier sees it: a real HTTP server on a loopback port that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.conftest import reactor
from tests.support.ports import free_port

Answer = Callable[["Received"], Any]


class Received:
    """A request, kept after it was answered."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.method: bytes = request.method
        self.path: bytes = request.uri
        self.headers: dict[bytes, list[bytes]] = dict(request.requestHeaders.getAllRawHeaders())
        self.body: bytes = request.content.read()


def status(code: int, **fields: str) -> Answer:
    """An answer with this status, these header fields (``_`` for ``-``) and a short body."""

    def answer(received: Received) -> bytes:
        received.request.setResponseCode(code)
        for name, value in fields.items():
            received.request.setHeader(name.replace("_", "-"), value)
        return b"" if code == 204 else b"{}"

    return answer


def silence(_: Received) -> int:
    """Accept the request and never answer."""
    return NOT_DONE_YET


class _Everything(Resource):
    isLeaf = True

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api

    def render(self, request: Request) -> Any:
        received = Received(request)
        self._api.requests.append(received)
        return self._api.answer(received)


class Api:
    """Starts at once; ``answer`` may be changed at any time. ``context`` is a TLS context factory."""

    def __init__(self, context: Any = None, address: str = "127.0.0.1") -> None:
        self.requests: list[Received] = []
        self.answer: Answer = status(204)
        self._context = context
        self._address = address
        self._factory: Any = WrappingFactory(Site(_Everything(self)))
        self._factory.protocol = ProtocolWrapper
        self._listener: Any = None
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"http://{host}:{self.port}"

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._factory.protocols)

    @property
    def bodies(self) -> list[str]:
        """The bodies of all requests so far."""
        return [received.body.decode() for received in self.requests]

    def start(self) -> None:
        """Listen, again on the same port."""
        if self._context is None:
            self._listener = reactor.listenTCP(self.port, self._factory, interface=self._address)
        else:
            self._listener = reactor.listenSSL(
                self.port, self._factory, self._context, interface=self._address
            )
        self.port = self._listener.getHost().port

    async def stop(self) -> None:
        """Go away, as a killed process does."""
        if self._listener is not None:
            await self._listener.stopListening()
            self._listener = None
        for connection in list(self._factory.protocols):
            connection.abortConnection()


class Raw(Protocol):
    """A server that writes whatever the test wants as soon as something has come in, and goes on writing."""

    transport: Any

    def __init__(self, head: bytes, more: bytes = b"") -> None:
        self._head = head
        self._more = more
        self.written = 0
        self.lost = False
        self._began = False

    def dataReceived(self, data: bytes) -> None:
        if self._began:
            return
        self._began = True
        self.transport.write(self._head)
        if self._more:
            self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.written += len(self._more)
        self.transport.write(self._more)

    def stopProducing(self) -> None:
        self._more = b""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
