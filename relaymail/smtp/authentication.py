"""AUTH in one session (RFC 4954): what is offered, the exchange in progress, and how often it failed."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable

from relaymail.smtp import reply, sasl
from relaymail.smtp.policy import Policy
from relaymail.smtp.reply import Outcome, Reply, ReplyError
from relaymail.smtp.scram import TLS_EXPORTER
from relaymail.smtp.scram_exchange import SCRAM, SCRAM_PLUS, Scram, Situation
from relaymail.smtp.session import ISession, Peer


class Authentication:
    """The state of AUTH in one session.

    :param channel_binding: the data of a type of channel binding, ``None`` where the connection has none.
    :param scram: whether SCRAM may be offered at the moment.
    """

    def __init__(
        self,
        policy: Policy,
        peer: Peer,
        session: ISession,
        channel_binding: Callable[[str], bytes | None],
        scram: Callable[[], bool],
    ) -> None:
        self.done = False
        """Whether somebody has logged in."""
        self.failures = 0
        self._policy = policy
        self._peer = peer
        self._session = session
        self._channel_binding = channel_binding
        self._scram = scram
        self._offered: tuple[str, ...] = ()
        self._mechanism: sasl.Mechanism | None = None
        self.in_progress = False
        """Whether the client's next line is a response and no command."""

    def offer(self) -> tuple[str, ...]:
        """The mechanisms for the reply to EHLO; until the next EHLO they stay what the client may choose."""
        self._offered = ()
        if self._policy.authentication and self._peer.tls and not self.done:
            self._offered = tuple(filter(self._available, self._policy.mechanisms))
        return self._offered

    def _available(self, mechanism: str) -> bool:
        if mechanism == SCRAM_PLUS:
            # Only with TLS 1.3: for older versions clients use tls-unique (RFC 5802 6.1), which is not safe
            # everywhere (RFC 7627) and not to be had here, and one that chose it would not fall back
            return self._scram() and self._channel_binding(TLS_EXPORTER) is not None
        return mechanism != SCRAM or self._scram()

    def begin(self, argument: str) -> Outcome:
        """``AUTH mechanism [initial-response]``. Raises :exc:`ReplyError`."""
        name, _, initial = argument.partition(" ")
        if not name:
            return reply.syntax("AUTH mechanism [initial-response]")
        mechanism = name.upper()
        if mechanism not in self._offered:
            return reply.UNKNOWN_MECHANISM
        self._mechanism = self._new(mechanism)
        # LOGIN's initial response is the login; PLAIN's is everything
        return self.respond(sasl.decode(initial.strip()) if initial else None)

    def _new(self, mechanism: str) -> sasl.Mechanism:
        if mechanism in sasl.MECHANISMS:
            return sasl.MECHANISMS[mechanism]()
        situation = Situation(
            self._session, self._peer.session_id, self._channel_binding, SCRAM_PLUS in self._offered
        )
        return Scram(situation, plus=mechanism == SCRAM_PLUS)

    def respond(self, response: bytes | None) -> Outcome:
        """The client's response (``None``: it sent no initial one). Raises :exc:`ReplyError`."""
        mechanism = self._mechanism
        self.end()
        assert mechanism is not None
        try:
            step = mechanism.respond(response)
        except ReplyError:
            self.failures += 1
            raise
        if isinstance(step, sasl.Challenge):
            return self._challenge(mechanism, step)
        if isinstance(step, sasl.Credentials):
            step = self._session.authenticate(step.login, step.password)
        return self._wait_for(mechanism, step)

    async def _wait_for(self, mechanism: sasl.Mechanism, step: Awaitable[sasl.Challenge | None]) -> Reply:
        try:
            further = await step
        except ReplyError as refusal:
            if refusal.reply.code == 535:
                self.failures += 1
            return refusal.reply
        if further is not None:
            return self._challenge(mechanism, further)
        self.done = True
        return reply.AUTHENTICATED

    def _challenge(self, mechanism: sasl.Mechanism, challenge: sasl.Challenge) -> Reply:
        """334 with the challenge in base64 (RFC 4954 4)."""
        self._mechanism = mechanism
        self.in_progress = True
        return Reply(334, None, base64.b64encode(challenge.text).decode())

    def end(self) -> None:
        """The exchange, if there is one, is over."""
        self._mechanism = None
        self.in_progress = False

    def delay(self) -> float:
        """Seconds before a failed authentication is answered: 1, 2, 4, …"""
        return 2.0 ** (self.failures - 1)
