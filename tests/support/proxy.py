"""A proxy in front of PostgreSQL that cuts the connection, or falls silent, at what it is told to find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol


class CuttingProxy(Factory):
    """Listens in ``folder`` as ``.s.PGSQL.5432`` and passes everything on to the real socket.

    Set ``cut_before`` to lose the connection before a client's packet that holds those bytes reaches the
    server, ``cut_after`` to lose it when the server has answered that packet, ``silent_after`` to keep the
    connection and withhold the answer. Each works once.
    """

    noisy = False

    def __init__(self, reactor: Any, target: Path, folder: Path) -> None:
        self.server = UNIXClientEndpoint(reactor, str(target / ".s.PGSQL.5432"))
        self.folder = folder
        self.cut_before = b""
        self.cut_after = b""
        self.silent_after = b""
        self.cuts = 0
        self.fronts: list[_Front] = []
        self._port = reactor.listenUNIX(str(folder / ".s.PGSQL.5432"), self)

    def buildProtocol(self, addr: Any) -> _Front:
        """Called by the reactor."""
        return _Front(self)

    async def close(self) -> None:
        """Stop listening and drop everything."""
        await self._port.stopListening()
        for front in list(self.fronts):
            front.cut()


class _Side(Protocol):
    """One of the two connections."""

    transport: Any

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


class _Back(_Side):
    """To the server."""

    def __init__(self, front: _Front) -> None:
        self._front = front

    def connectionMade(self) -> None:
        self._front.back = self
        self.send(b"".join(self._front.waiting))

    def dataReceived(self, data: bytes) -> None:
        if self._front.cut_at_answer:
            self._front.cut()
        elif not self._front.silent:
            self._front.send(data)

    def connectionLost(self, reason: Any = None) -> None:
        self._front.cut()


class _Front(_Side):
    """From the client."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self._proxy = proxy
        self.back: _Back | None = None
        self.waiting: list[bytes] = []
        self.cut_at_answer = False
        self.silent = False

    def connectionMade(self) -> None:
        self._proxy.fronts.append(self)
        connectProtocol(self._proxy.server, _Back(self)).addErrback(lambda _: self.cut())

    def dataReceived(self, data: bytes) -> None:
        proxy = self._proxy
        if proxy.cut_before and proxy.cut_before in data:
            proxy.cut_before = b""
            proxy.cuts += 1
            self.cut()
            return
        if proxy.cut_after and proxy.cut_after in data:
            proxy.cut_after = b""
            proxy.cuts += 1
            self.cut_at_answer = True
        if proxy.silent_after and proxy.silent_after in data:
            proxy.silent_after = b""
            self.silent = True
        if self.back is None:
            self.waiting.append(data)
        else:
            self.back.send(data)

    def cut(self) -> None:
        super().cut()
        if self.back is not None:
            self.back.cut()

    def connectionLost(self, reason: Any = None) -> None:
        if self in self._proxy.fronts:
            self._proxy.fronts.remove(self)
        self.cut()
