"""How long the client waits for the next host (RFC 5321 4.5.3.2)."""

from __future__ import annotations

from dataclasses import dataclass

from relaymail.smtp.policy import MINUTE


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Seconds for each phase. A reply must be there whole by then, however slowly it drips in."""

    connect: float = 30.0
    greeting: float = 5 * MINUTE
    hello: float = 5 * MINUTE
    """For the reply to EHLO or HELO."""
    tls: float = 2 * MINUTE
    """For the reply to STARTTLS, and again for the handshake."""
    auth: float = 5 * MINUTE
    """For each step of AUTH."""
    mail: float = 5 * MINUTE
    rcpt: float = 5 * MINUTE
    data: float = 2 * MINUTE
    """For the reply to DATA."""
    block: float = 3 * MINUTE
    """For the host to take the next 64 KiB of a message, and for the reply to a chunk that others follow."""
    final_dot: float = 10 * MINUTE
    """For the reply behind the end of the message, which must be long: who gives up too early sends twice."""
    quit: float = 5.0
    """For the host to close behind QUIT, before the connection is cut. Nobody waits for it."""

    @classmethod
    def uniform(cls, seconds: float) -> ClientTimeouts:
        """All the same, but for QUIT."""
        return cls(*[seconds] * 10)
