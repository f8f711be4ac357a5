"""The client's side of SMTP: one connection to the next host, and messages over it, one after the other.

::

    connection = await connect(reactor, "192.0.2.1", 25, host="mx.example.com", helo="relay.example.org",
                               tls=TLSRequirement.opportunistic())
    needs = connection.needs(mail)          # does the message have to be recoded before it is signed?
    outcomes = await connection.send(mail, body, before_dot)    # one for each recipient
    connection.quit()

Nothing that a host does raises anything else than :exc:`ConnectFailed`; behind that, it is an outcome.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from relaymail.smtp.client_mail import Mail, MailRecipient, Needs, Outcome, Phase
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_timeouts import ClientTimeouts
from relaymail.smtp.client_tls import (
    ClientTLSFacts,
    TLSARecord,
    TLSMode,
    TLSProblem,
    TLSRequirement,
    TrustRoots,
)
from relaymail.smtp.sasl import Credentials

__all__ = [
    "Body",
    "ClientConnection",
    "ClientTLSFacts",
    "ClientTimeouts",
    "ConnectFailed",
    "Credentials",
    "Interrupted",
    "Mail",
    "MailRecipient",
    "Needs",
    "Outcome",
    "RemoteReply",
    "TLSARecord",
    "TLSMode",
    "TLSProblem",
    "TLSRequirement",
    "TrustRoots",
    "connect",
]

Body = bytes | AsyncIterable[bytes]
"""A message as it is to be sent, header section included: at once, or in parts that are asked for as the host
takes them. Asked for only once the host wants the message."""

BeforeDot = Callable[[Sequence[int]], Awaitable[bool]]
"""Awaited when all but the end of the message is on its way, with the indices of the recipients that were
accepted: whether the message may be ended. If not, the connection is dropped and the host throws away what
it has."""


class ConnectFailed(Exception):
    """No connection over which mail could be sent. None of it was."""

    def __init__(
        self,
        phase: Phase,
        why: str,
        *,
        status: str,
        reply: RemoteReply | None = None,
        tls_problem: TLSProblem | None = None,
    ) -> None:
        super().__init__(why if reply is None else f"{why}: {reply}")
        self.phase = phase
        self.why = why
        """For people, without the reply's text."""
        self.status = status
        """Enhanced status code; of class 4, but for :attr:`permanent`."""
        self.reply = reply
        self.tls_problem = tls_problem
        """Set where TLS is what failed."""

    @property
    def permanent(self) -> bool:
        """The host wants no mail of us at all: a 5xx to the greeting, EHLO or HELO. The next host may."""
        return self.status.startswith("5")

    @property
    def tls_failed(self) -> bool:
        """Whether TLS is what failed: worth a try in clear, unless the requirement forbids it."""
        return self.tls_problem is not None


class Interrupted(Exception):
    """The body or ``before_dot`` raised, which is the cause of this; the connection was dropped before the
    end of the message."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__("the message could not be read to its end")
        self.outcomes = outcomes
        """One for each recipient: refusals of the host stand, the others are deferred (4.3.0)."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a host offers (RFC 5321 4.1.1.1)."""

    name: str = ""
    """The name the host gives itself in its reply; lower case."""
    extensions: dict[str, str] | None = None
    """Parameters by upper-case keyword; ``None`` behind HELO."""

    def offers(self, keyword: str) -> bool:
        """Whether an extension is offered; ``keyword`` in upper case."""
        raise NotImplementedError


class ClientConnection:
    """A connection that is ready for mail."""

    host: str
    """The name it was made for."""
    address: str
    """IP address of the peer."""
    port: int
    capabilities: Capabilities
    tls: ClientTLSFacts | None
    """``None``: in clear."""
    transactions: int
    """Messages that were sent or tried over it."""

    @property
    def usable(self) -> bool:
        """Whether another message may be sent over it. False once it was closed, by whomever, or while a
        message is being sent."""
        raise NotImplementedError

    def needs(self, mail: Mail) -> Needs:
        """What this host wants of the message, decided from what it offers; sends nothing."""
        raise NotImplementedError

    async def send(self, mail: Mail, body: Body, before_dot: BeforeDot | None = None) -> list[Outcome]:
        """Send a message and say what became of each recipient, in the order of ``mail.recipients``.

        Whatever :meth:`needs` refuses is an outcome here too, and is not sent.

        :raises ValueError: ``mail`` still needs a conversion, or the connection is not :attr:`usable`.
        :raises Interrupted: ``body`` or ``before_dot`` raised. A cancellation is passed on as it is; the
            connection is dropped.
        """
        raise NotImplementedError

    async def reset(self) -> bool:
        """RSET; whether the connection is still usable. Needed only to find out whether it is alive: what a
        transaction leaves open is closed by the next one."""
        raise NotImplementedError

    def quit(self) -> None:
        """Send QUIT and close; returns at once, and whatever becomes of it changes nothing. May be called at
        any time and twice: while a message is being sent the connection is dropped."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the connection."""
        raise NotImplementedError


async def connect(
    reactor: Any,
    address: str,
    port: int,
    *,
    host: str,
    helo: str,
    tls: TLSRequirement,
    timeouts: ClientTimeouts | None = None,
    credentials: Credentials | None = None,
    clear_credentials: bool = False,
    bind_address: str | None = None,
) -> ClientConnection:
    """Connect, be greeted, say EHLO, and, as ``tls`` asks, STARTTLS and EHLO again; log in if told to.

    :param address: IPv4 or IPv6 address.
    :param host: the host's name, for SNI and to be shown; an address literal's address if it has none.
    :param helo: our name, or an address literal.
    :param credentials: log in with AUTH; the host must offer PLAIN or LOGIN. Only under TLS, unless
        ``clear_credentials``.
    :param bind_address: IP address to connect from.
    :raises ConnectFailed: there is no such connection. A host that refuses a login is a temporary failure
        (the password here may be the wrong one).
    """
    raise NotImplementedError
