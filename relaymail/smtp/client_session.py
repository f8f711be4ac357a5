"""From a connection to a session that is ready for mail: greeting, EHLO, STARTTLS, AUTH (RFC 5321 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from relaymail.smtp import client_capabilities
from relaymail.smtp.client_capabilities import Capabilities
from relaymail.smtp.client_errors import Broken, ConnectFailed
from relaymail.smtp.client_mail import Phase
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_sasl import log_in
from relaymail.smtp.client_timeouts import ClientTimeouts
from relaymail.smtp.client_tls import (
    BadCertificate,
    ClientTLS,
    ClientTLSFacts,
    TLSMode,
    TLSProblem,
    TLSRequirement,
)
from relaymail.smtp.client_wire import Wire
from relaymail.smtp.sasl import Credentials


@dataclass(frozen=True, slots=True)
class Introduction:
    """How to present ourselves to a host, and what is asked of it."""

    host: str
    """Its name, for SNI."""
    helo: str
    """Ours."""
    tls: TLSRequirement
    timeouts: ClientTimeouts
    credentials: Credentials | None = None
    clear_credentials: bool = False
    """Log in even without TLS."""


class Opening:
    """Opens a session. Raises :exc:`ConnectFailed`, and leaves closing the connection to its caller."""

    def __init__(self, wire: Wire, introduction: Introduction) -> None:
        self._wire = wire
        self._given = introduction
        self.capabilities = Capabilities()
        self.tls: ClientTLSFacts | None = None

    async def run(self) -> None:
        """Do it; :attr:`capabilities` and :attr:`tls` are right then."""
        required, timeouts = self._given.tls, self._given.timeouts
        if required.implicit:
            await self._shake_hands()
        with _during("greeting"):
            greeting = await self._wire.reply(timeouts.greeting)
        _expect_2xx(greeting, "greeting", "the host does not talk to us")
        await self._hello()
        if required.mode is not TLSMode.NONE and not required.implicit:
            await self._start_tls()
        if self._given.credentials is not None:
            await self._log_in(self._given.credentials)

    async def _hello(self, tls_problem: TLSProblem | None = None) -> None:
        """EHLO, or HELO where that is not known (RFC 5321 3.2)."""
        read = client_capabilities.of_ehlo
        with _during("ehlo", tls_problem):
            reply = await self._say(f"EHLO {self._given.helo}", self._given.timeouts.hello)
            if reply.code // 100 == 5:
                read = client_capabilities.of_helo
                reply = await self._say(f"HELO {self._given.helo}", self._given.timeouts.hello)
        _expect_2xx(reply, "ehlo", "the host refused our EHLO and HELO")
        self.capabilities = read(reply)

    async def _start_tls(self) -> None:
        """STARTTLS and EHLO again (RFC 3207). Nothing where there is no TLS to be had and need be none."""
        problem: TLSProblem
        if not self.capabilities.offers("STARTTLS"):
            problem, why, reply = "not-offered", "the host does not offer STARTTLS", None
        else:
            with _during("starttls", "refused"):
                reply = await self._say("STARTTLS", self._given.timeouts.tls)
            problem, why = "refused", "the host refused STARTTLS"
            if reply.code == 220:
                if self._wire.has_more:
                    # It would be taken for what came under TLS (RFC 3207 6)
                    raise ConnectFailed(
                        "starttls",
                        "the host sent more than its reply to STARTTLS",
                        status="4.7.0",
                        tls_problem="refused",
                    )
                await self._shake_hands()
                # With TLS 1.3 the host may refuse the handshake when it is over for us
                await self._hello("handshake")
                return
        if self._given.tls.forbids_clear or (reply is not None and reply.code == 421):
            raise ConnectFailed("starttls", why, status="4.7.4", reply=reply, tls_problem=problem)

    async def _shake_hands(self) -> None:
        creator = ClientTLS(self._given.tls, self._given.host)
        with _during("starttls", "handshake"):
            connection = await self._wire.start_tls(creator, self._given.timeouts.tls)
        try:
            self.tls = creator.check(connection)
        except BadCertificate as error:
            self._wire.abort()
            raise ConnectFailed("starttls", str(error), status="4.7.5", tls_problem="certificate") from None

    async def _log_in(self, credentials: Credentials) -> None:
        if self.tls is None and not self._given.clear_credentials:
            raise ConnectFailed("auth", "without TLS the password is not sent", status="4.7.0")
        with _during("auth"):
            await log_in(self._wire, credentials, self.capabilities.mechanisms, self._given.timeouts.auth)

    async def _say(self, line: str, seconds: float) -> RemoteReply:
        self._wire.command(f"{line}\r\n".encode())
        return await self._wire.reply(seconds)


@contextmanager
def _during(phase: Phase, tls_problem: TLSProblem | None = None) -> Iterator[None]:
    """A connection that breaks in here is a failure of this ``phase``.

    :param tls_problem: what it says of TLS.
    """
    try:
        yield
    except Broken as broken:
        status = "4.7.5" if tls_problem == "handshake" and broken.reply is None else broken.status
        raise ConnectFailed(
            phase, broken.why, status=status, reply=broken.reply, tls_problem=tls_problem
        ) from None


def _expect_2xx(reply: RemoteReply, phase: Phase, why: str) -> None:
    """:raises ConnectFailed: the reply is another."""
    match reply.code // 100:
        case 2:
            return
        case 4 | 5:
            raise ConnectFailed(phase, why, status=reply.status, reply=reply)
        case _:
            raise ConnectFailed(phase, "the host's reply makes no sense here", status="4.5.0", reply=reply)
