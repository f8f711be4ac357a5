"""A proxy in front of PostgreSQL that cuts the connection, or falls silent, at what it is told to look for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol


class CuttingProxy:
    """Listens in ``folder`` as ``.s.PGSQL.5432`` and passes everything on to the real socket.

    Set ``cut_before`` to lose the connection before a client's packet that holds those bytes reaches the
    server, ``cut_after`` to lose it when the server has answered that packet, ``silent_after`` to keep the
    connection and withhold the answer. Each works once.
    """

    def __init__(self, reactor: Any, target: Path, folder: Path) -> None:
        self._reactor = reactor
        self.target = target / ".s.PGSQL.5432"
        self.folder = folder
        self.cut_before = b""
        self.cut_after = b""
        self.silent_after = b""
        self.cuts = 0
        self.connections: list[_Front] = []
        factory = Factory()
        factory.buildProtocol = lambda _: _Front(self)  # type: ignore[method-assign,assignment]
        self._port = reactor.listenUNIX(str(folder / ".s.PGSQL.5432"), factory)

    async def close(self) -> None:
        """Stop listening and drop everything."""
        await self._port.stopListening()
        for connection in list(self.connections):
            connection.cut()


class _Back(Protocol):
    def __init__(self, front: _Front) -> None:
        self.front = front

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(self.front.waiting))
        self.front.back = self

    def dataReceived(self, data: bytes) -> None:
        if self.front.silent:
            return
        if self.front.answered_cuts:
            self.front.cut()
        else:
            assert self.front.transport is not None
            self.front.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.front.cut()


class _Front(Protocol):
    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.back: _Back | None = None
        self.waiting: list[bytes] = []
        self.answered_cuts = False
        self.silent = False

    def connectionMade(self) -> None:
        self.proxy.connections.append(self)
        factory = Factory()
        factory.noisy = False  # type: ignore[assignment]
        factory.buildProtocol = lambda _: _Back(self)  # type: ignore[method-assign,assignment]
        for name in (
            "doStart",
            "doStop",
            "startedConnecting",
            "clientConnectionLost",
            "clientConnectionFailed",
        ):
            setattr(factory, name, lambda *_: None)
        self.proxy._reactor.connectUNIX(str(self.proxy.target), factory)

    def dataReceived(self, data: bytes) -> None:
        proxy = self.proxy
        if proxy.cut_before and proxy.cut_before in data:
            proxy.cut_before = b""
            proxy.cuts += 1
            self.cut()
            return
        if proxy.cut_after and proxy.cut_after in data:
            proxy.cut_after = b""
            proxy.cuts += 1
            self.answered_cuts = True
        if proxy.silent_after and proxy.silent_after in data:
            proxy.silent_after = b""
            self.silent = True
        if self.back is None:
            self.waiting.append(data)
        else:
            assert self.back.transport is not None
            self.back.transport.write(data)

    def cut(self) -> None:
        """Lose both sides at once."""
        for side in (self.back, self):
            if side is not None and side.transport is not None:
                side.transport.abortConnection()  # type: ignore[attr-defined]

    def connectionLost(self, reason: Any = None) -> None:
        if self in self.proxy.connections:
            self.proxy.connections.remove(self)
        if self.back is not None and self.back.transport is not None:
            self.back.transport.loseConnection()
