"""The client over a transport in memory, on a clock that goes when it is told."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from relaymail.smtp.client import (
    ClientConnection,
    ClientTimeouts,
    ConnectFailed,
    Credentials,
    TLSRequirement,
    connect,
)
from tests.smtp.memory import Transport

_T = TypeVar("_T")


class Conversation:
    """One connection, of which the test plays the host.

    :param options: of :func:`~relaymail.smtp.client.connect`.
    """

    def __init__(self, *, tls: TLSRequirement | None = None, **options: Any) -> None:
        self.reactor = MemoryReactorClock()
        self.transport = Transport()
        self.connecting: Deferred[ClientConnection] = Deferred.fromCoroutine(
            connect(
                self.reactor,
                "192.0.2.1",
                25,
                host="mx.example.test",
                helo="relay.example.org",
                tls=tls or TLSRequirement.none(),
                **options,
            )
        )

    def arrive(self) -> None:
        """The connection is made."""
        factory: Any = self.reactor.tcpClients[0][2]
        self.protocol: Any = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def open(self, *offered: str) -> ClientConnection:
        """Come as far as a connection that is ready for mail."""
        self.arrive()
        self.host("220 mx.example.test")
        lines = ["mx.example.test", *offered]
        self.host(*[f"250-{line}" for line in lines[:-1]], f"250 {lines[-1]}")
        self.said()
        return result(self.connecting)

    def host(self, *lines: str) -> None:
        """The host says something."""
        self.protocol.dataReceived("".join(f"{line}\r\n" for line in lines).encode())

    def said(self) -> bytes:
        """What the client has said since it was asked last."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def pass_time(self, seconds: float) -> None:
        """It gets later."""
        self.reactor.advance(seconds)

    @property
    def cut(self) -> bool:
        """Whether the client has cut the connection; it is told then, as it would be."""
        if self.transport.aborted and not self.transport.disconnected:
            self.transport.disconnected = True
            self.protocol.connectionLost(Failure(ConnectionDone()))
        return self.transport.aborted

    @property
    def timers(self) -> int:
        """Timers that are running."""
        return len(self.reactor.getDelayedCalls())


def started(coroutine: Coroutine[Any, Any, _T]) -> Deferred[_T]:
    """Begin with it."""
    return Deferred.fromCoroutine(coroutine)


def result(deferred: Deferred[_T]) -> _T:
    """What has come of it, or raised."""
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    assert outcome, "it is not done"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    value: _T = outcome[0]
    return value


def failure_of(connecting: Deferred[ClientConnection]) -> ConnectFailed:
    """How connecting has failed."""
    try:
        result(connecting)
    except ConnectFailed as failure:
        return failure
    raise AssertionError("it did not fail")


__all__ = ["ClientTimeouts", "Conversation", "Credentials", "failure_of", "result", "started"]
