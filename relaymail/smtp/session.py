"""The door between the protocol and whoever decides about mail: one object per connection.

The engine (:mod:`relaymail.smtp.server`) knows commands, order and framing; a session knows who may send what
to whom. A refusal is one exception, :class:`~relaymail.smtp.reply.ReplyError`; anything else raised is logged
and answered ``451 4.3.0``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Protocol

from relaymail.smtp.address import Address
from relaymail.smtp.content import Content
from relaymail.smtp.scram import KeyFound, Salting


@dataclass(frozen=True, slots=True)
class TLSFacts:
    """What was negotiated, for the Received: header and the archive (``TLSv1.3``,
    ``TLS_AES_256_GCM_SHA384``)."""

    version: str
    cipher: str


@dataclass(slots=True)
class Peer:
    """The client of one connection, as far as it is known so far."""

    session_id: str
    listener: str
    address: str
    port: int
    name: str = ""
    """As given to EHLO or HELO."""
    extended: bool = False
    """Whether it said EHLO."""
    tls: TLSFacts | None = None
    login: str | None = None
    """The address of the user who has logged in, for the log."""


def client_of(address: Any) -> tuple[str, int]:
    """Host and port of a client: IPv6 without its zone, and as IPv4 where it is that in disguise."""
    host = getattr(address, "host", None)
    if host is None:
        # A Unix socket: somebody on this machine
        return "127.0.0.1", 0
    if ":" in host:
        plain = IPv6Address(host.partition("%")[0])
        host = str(plain.ipv4_mapped or plain)
    return host, address.port


class ISession(Protocol):
    """What the engine asks of a session. Each method may be slow; the engine keeps the order of commands."""

    def mail(self, sender: Address | None, parameters: Mapping[str, str | None]) -> Awaitable[None] | None:
        """Begin a transaction from ``sender`` (``None`` is the null reverse-path, RFC 5321 4.5.5)."""

    def recipient(self, recipient: Address, parameters: Mapping[str, str | None]) -> Awaitable[None] | None:
        """Add a recipient to the transaction."""

    def message(self, content: Content) -> Awaitable[str]:
        """Make the message durable and return its id. The 250 is sent when this has returned."""

    def authenticate(self, login: str, password: str) -> Awaitable[None]:
        """Check a login (RFC 4954); returning means it is now this session's."""

    def scram_salting(self, login: str) -> Awaitable[Salting]:
        """What this login's keys are salted with; a login that nobody has gets an answer like any other
        (RFC 5802 5.1)."""

    def scram_key(self, login: str, fits: Callable[[bytes], bool]) -> Awaitable[KeyFound]:
        """The live key of this login whose ``StoredKey`` ``fits`` (RFC 5802 3); refuses where there is
        none."""

    def reset(self) -> None:
        """Forget the transaction in progress (RSET, EHLO, a new MAIL's end)."""

    def closed(self) -> None:
        """The connection is gone."""
