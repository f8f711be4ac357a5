"""Replies on their way to the client: held while a batch is being answered, then written at once."""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.tcp import Connection

BATCH: Final = 100
"""Replies that are held at most: only what is written can be held against a client that does not read."""


class Output:
    """What is sent on ``transport``."""

    __slots__ = ("_direct", "_held", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._direct = isinstance(transport, Connection)
        """Nothing stands between us and the socket: no TLS, nothing unsent."""

    def add(self, reply: bytes) -> None:
        """Send a reply with the next :meth:`flush`."""
        self._held.append(reply)
        if len(self._held) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what is held, in one write."""
        if self._held:
            data = b"".join(self._held) if len(self._held) > 1 else self._held[0]
            self._held = []
            self._write(data)

    def tls_begins(self) -> None:
        """From now on everything has to go through the transport."""
        self._direct = False

    def _write(self, data: bytes) -> None:
        """Send at once what the kernel takes.

        A reply is small and the socket nearly always takes it; by way of the reactor it would cost two
        ``epoll_ctl`` calls and a turn, four times a message.
        """
        if self._direct:
            sent = self._transport.writeSomeData(data)
            if sent == len(data):
                return
            # The client reads slowly or is gone: from here on the transport keeps what is unsent
            self._direct = False
            data = data[sent:] if isinstance(sent, int) else data
        self._transport.write(data)
