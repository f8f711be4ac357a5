"""The client's side of SMTP: one connection to the next host, and messages over it, one after the other.

::

    connection = await connect(reactor, "192.0.2.1", 25, host="mx.example.com", helo="relay.example.org",
                               tls=TLSRequirement.opportunistic())
    needs = connection.needs(mail)          # does the message have to be recoded before it is signed?
    outcomes = await connection.send(mail, body, before_dot)    # one for each recipient
    connection.quit()

Whatever a host does is a :exc:`ConnectFailed`, or, behind that, an outcome.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any, Final, cast

from twisted.internet import error as network
from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory

from relaymail.smtp.client_capabilities import Capabilities
from relaymail.smtp.client_dane import TLSARecord
from relaymail.smtp.client_envelope import Plan, plan
from relaymail.smtp.client_errors import Broken, ConnectFailed, Interrupted
from relaymail.smtp.client_mail import Conversion, Mail, MailRecipient, Needs, Outcome, Phase, Verdict
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_session import Introduction, Opening
from relaymail.smtp.client_timeouts import ClientTimeouts
from relaymail.smtp.client_tls import ClientTLSFacts, TLSMode, TLSProblem, TLSRequirement, TrustRoots
from relaymail.smtp.client_transaction import BeforeDot, Transaction
from relaymail.smtp.client_transfer import Body
from relaymail.smtp.client_wire import Wire
from relaymail.smtp.sasl import Credentials

__all__ = [
    "BeforeDot",
    "Body",
    "Capabilities",
    "ClientConnection",
    "ClientTLSFacts",
    "ClientTimeouts",
    "ConnectFailed",
    "Conversion",
    "Credentials",
    "Interrupted",
    "Mail",
    "MailRecipient",
    "Needs",
    "Outcome",
    "Phase",
    "RemoteReply",
    "TLSARecord",
    "TLSMode",
    "TLSProblem",
    "TLSRequirement",
    "TrustRoots",
    "Verdict",
    "connect",
]

_INTERRUPTED: Final = Outcome("deferred", "4.3.0", None, "transfer", "our own side failed")


class ClientConnection:
    """A connection that is ready for mail."""

    def __init__(
        self, wire: Wire, opening: Opening, timeouts: ClientTimeouts, host: str, address: str, port: int
    ) -> None:
        self.host = host
        """The name it was made for."""
        self.address = address
        """IP address of the peer."""
        self.port = port
        self.capabilities: Capabilities = opening.capabilities
        self.tls: ClientTLSFacts | None = opening.tls
        """``None``: in clear."""
        self.transactions = 0
        """Messages that were sent or tried over it."""
        self._wire = wire
        self._timeouts = timeouts
        self._left_open = False
        self._sending = False

    @property
    def usable(self) -> bool:
        """Whether another message may be sent over it: not once it was closed, by whomever, not while a
        message is being sent, and not when the host has had as many as it takes (RFC 9422)."""
        most = self.capabilities.most_messages
        return self._alive and (most is None or self.transactions < most)

    @property
    def _alive(self) -> bool:
        return self._wire.idle and not self._sending

    def needs(self, mail: Mail) -> Needs:
        """What this host wants of the message, decided from what it offers; sends nothing."""
        planned = plan(mail, self.capabilities, self.tls)
        return Needs(planned.conversion, planned.refusals)

    async def send(self, mail: Mail, body: Body, before_dot: BeforeDot | None = None) -> list[Outcome]:
        """Send a message and say what became of each recipient, in the order of ``mail.recipients``.

        Whatever :meth:`needs` refuses is an outcome here too, and is not sent.

        :raises ValueError: ``mail`` still needs a conversion, or the connection is not :attr:`usable`.
        :raises Interrupted: ``body`` or ``before_dot`` raised. A cancellation is passed on as it is; the
            connection is dropped.
        """
        planned = plan(mail, self.capabilities, self.tls)
        if planned.conversion is not None:
            raise ValueError(f"the message has to be made {planned.conversion} for this host")
        if not self.usable:
            raise ValueError("the connection is not usable")
        if not planned.recipients:
            return [planned.refusals[n] for n in range(len(mail.recipients))]
        outcomes = await self._transact(planned, body, before_dot)
        if self._alive and all(map(_blames_a_parameter, outcomes)):
            return await self._say_less(mail, planned, body, before_dot) or outcomes
        return outcomes

    async def _say_less(
        self, mail: Mail, said: Plan, body: Body, before_dot: BeforeDot | None
    ) -> list[Outcome] | None:
        """The host does not know the parameters it offers: the same again without them, if it can be.

        The body was not asked for yet. ``None``: that is no better.
        """
        less = self.capabilities.without("SIZE", "8BITMIME", "DSN", "SMTPUTF8")
        planned = plan(mail, less, self.tls)
        same = planned.mail == said.mail and planned.recipients == said.recipients
        if same or planned.conversion is not None or planned.recipients.keys() != said.recipients.keys():
            return None
        outcomes = await self._transact(planned, body, before_dot)
        if all(map(_blames_a_parameter, outcomes)):
            return None
        self.capabilities = less
        return outcomes

    async def _transact(self, planned: Plan, body: Body, before_dot: BeforeDot | None) -> list[Outcome]:
        pipelining = self.capabilities.offers("PIPELINING")
        transaction = Transaction(
            self._wire, planned, self._timeouts, pipelining=pipelining, reset=self._left_open
        )
        self.transactions += 1
        self._sending = True
        try:
            await transaction.run(body, before_dot)
        except Exception as error:
            self._wire.abort()
            if isinstance(error, CancelledError):
                raise
            raise Interrupted(transaction.outcomes(_INTERRUPTED)) from error
        except BaseException:
            self._wire.abort()
            raise
        finally:
            self._sending = False
            self._left_open = transaction.left_open
        return transaction.outcomes(_INTERRUPTED)

    async def reset(self) -> bool:
        """RSET; whether the connection is alive, which is what it is good for: what a transaction leaves open
        is closed by the next one."""
        if not self._alive:
            return False
        self._sending = True
        try:
            self._wire.command(b"RSET\r\n")
            reply = await self._wire.reply(self._timeouts.mail)
        except Broken:
            return False
        finally:
            self._sending = False
        if reply.code // 100 != 2:
            self.quit()
            return False
        self._left_open = False
        return True

    def quit(self) -> None:
        """Send QUIT and close; returns at once, and whatever becomes of it changes nothing. May be called at
        any time and twice: while a message is being sent the connection is dropped."""
        self._wire.quit(self._timeouts.quit)

    def abort(self) -> None:
        """Drop the connection."""
        self._wire.abort()


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
    :param host: the host's name, for SNI and to be shown; its address if it has none.
    :param helo: our name, or an address literal.
    :param credentials: log in with AUTH; the host must offer PLAIN or LOGIN. Only under TLS, unless
        ``clear_credentials``.
    :param bind_address: IP address to connect from.
    :raises ConnectFailed: there is no such connection. A host that refuses a login is a temporary failure
        (the password here may be the wrong one).
    :raises CancelledError: it was cancelled, however far it had come.
    """
    timeouts = timeouts or ClientTimeouts()
    kind = TCP6ClientEndpoint if ip_address(address).version == 6 else TCP4ClientEndpoint
    endpoint = kind(
        reactor,
        address,
        port,
        timeout=timeouts.connect,
        bindAddress=None if bind_address is None else (bind_address, 0),
    )
    try:
        wire = await endpoint.connect(cast(IProtocolFactory, _Wires(reactor)))
    except network.ConnectingCancelledError:
        raise CancelledError from None
    except network.ConnectError as error:
        raise ConnectFailed("connect", _why_not(error), status="4.4.1") from None
    opening = Opening(wire, Introduction(host, helo, tls, timeouts, credentials, clear_credentials))
    try:
        await opening.run()
    except ConnectFailed:
        wire.quit(timeouts.quit)
        raise
    except BaseException:
        wire.abort()
        raise
    return ClientConnection(wire, opening, timeouts, host, address, port)


def _blames_a_parameter(outcome: Outcome) -> bool:
    """Whether a refusal is, or may be, one of what stands behind an address (RFC 5321 4.1.1.11)."""
    return (
        outcome.phase in ("mail", "rcpt")
        and outcome.verdict == "failed"
        and outcome.reply is not None
        and (outcome.reply.code == 555 or outcome.reply.enhanced == "5.5.4")
    )


class _Wires(Factory[Wire]):
    noisy = False

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def buildProtocol(self, addr: object) -> Wire:
        return Wire(self._reactor)


def _why_not(error: network.ConnectError) -> str:
    if isinstance(error, network.TimeoutError):
        return "the host did not answer"
    return f"the host cannot be reached: {error}"
