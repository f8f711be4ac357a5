"""What tests of health share: checks that do as told, SMTP servers that misbehave, an HTTP client."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent

from relaymail.health import HealthCheck, Result, Status
from tests.conftest import reactor
from tests.support.polling import LIMIT


class Check:
    """A check that ends when the test says so."""

    def __init__(self, name: str = "database", shared: float = 0.0) -> None:
        self.runs: list[Deferred[Result]] = []
        self.cancelled = 0
        self.check = HealthCheck(name, ("tag",), self.run, shared)

    async def run(self) -> Result:
        running: Deferred[Result] = Deferred(self._cancel)
        self.runs.append(running)
        return await running

    def _cancel(self, _: Deferred[Result]) -> None:
        self.cancelled += 1

    def end(self, status: Status = Status.HEALTHY, description: str | None = "fine") -> None:
        """The latest run finds this."""
        self.runs[-1].callback(Result(status, description))


def fixed(name: str, result: Result) -> HealthCheck:
    """A check that finds ``result`` at once."""

    async def run() -> Result:
        return result

    return HealthCheck(name, ("tag",), run)


@dataclass
class Response:
    """An HTTP response with its body."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


async def request(method: str, url: str, **arguments: Any) -> Response:
    """Ask, over a connection of its own, as curl and Kubernetes do."""
    client = HTTPClient(Agent(reactor))  # type: ignore[arg-type]
    response = await client.request(method, url, timeout=LIMIT, **arguments)
    headers = {
        name.decode().lower(): ", ".join(value.decode() for value in values)
        for name, values in response.headers.getAllRawHeaders()
    }
    return Response(response.code, headers, await treq.content(response))


class Listener:
    """A server on loopback that says ``greeting`` to everyone."""

    def __init__(self, greeting: bytes | None, interface: str = "127.0.0.1", close: bool = False) -> None:
        self.greeting = greeting
        self.close = close
        self.deaf = False
        """Whether it does not hear QUIT."""
        self.received: list[bytes] = []
        self.clients: list[tuple[str, int]] = []
        self.lost = 0
        factory: Factory[Protocol] = Factory.forProtocol(lambda: _Greeter(self))
        self._port = reactor.listenTCP(0, factory, interface=interface)
        self.address: tuple[str, int] = (interface, self._port.getHost().port)

    async def stop(self) -> None:
        """Close the port."""
        await self._port.stopListening()


class _Greeter(Protocol):
    def __init__(self, server: Listener) -> None:
        self._server = server

    def connectionMade(self) -> None:
        transport: Any = self.transport
        peer = transport.getPeer()
        self._server.clients.append((peer.host, peer.port))
        if self._server.greeting is not None:
            transport.write(self._server.greeting)
        if self._server.close:
            transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._server.received.append(data)
        transport: Any = self.transport
        if data == b"QUIT\r\n" and not self._server.deaf:
            transport.write(b"221 2.0.0 Bye\r\n")
            transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.lost += 1


Listen = Callable[..., Listener]
