"""The SASL mechanisms SCRAM-SHA-256 and SCRAM-SHA-256-PLUS: the exchange between client and session.

What the messages say is in :mod:`relaymail.smtp.scram`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from twisted.logger import Logger

from relaymail.smtp import reply, scram
from relaymail.smtp.reply import ReplyError
from relaymail.smtp.sasl import Challenge
from relaymail.smtp.scram import ScramError
from relaymail.smtp.session import ISession

log = Logger()

SCRAM: Final = "SCRAM-SHA-256"
SCRAM_PLUS: Final = "SCRAM-SHA-256-PLUS"

NONCE_OCTETS: Final = 18
"""144 bits: more than enough never to come twice."""


@dataclass(frozen=True, slots=True)
class Situation:
    """Where an exchange takes place."""

    session: ISession
    session_id: str
    channel_binding: Callable[[str], bytes | None]
    """The data of a type of channel binding, ``None`` where the connection has none."""
    plus_offered: bool
    """Whether the client was offered the mechanism with channel binding."""


class Scram:
    """One exchange, with channel binding (``-PLUS``) or without (RFC 5802 5).

    The server's last word goes as a challenge too, as SMTP's 235 has no place for it; the client answers with
    an empty response (RFC 4954 4). Whatever is wrong is one and the same refusal, and the log says more.
    """

    def __init__(self, situation: Situation, *, plus: bool) -> None:
        self._situation = situation
        self._plus = plus
        self._take: Callable[[bytes], Awaitable[Challenge | None]] = self._first

    def respond(self, response: bytes | None) -> Challenge | Awaitable[Challenge | None]:
        """Take the client's next message; the login stands when an awaited step ends in ``None``."""
        return Challenge(b"") if response is None else self._step(response)

    async def _step(self, response: bytes) -> Challenge | None:
        try:
            return await self._take(response)
        except ScramError as error:
            log.info(
                "Session {session}: SCRAM failed: {why}", session=self._situation.session_id, why=str(error)
            )
            raise ReplyError(reply.AUTHENTICATION_FAILED) from error

    async def _first(self, response: bytes) -> Challenge:
        first = scram.client_first(response)
        scram.check_binding(first, plus=self._plus, plus_offered=self._situation.plus_offered)
        binding = self._situation.channel_binding(first.binding) if first.binding else b""
        if binding is None:
            raise ScramError("unsupported-channel-binding-type")
        salting = await self._situation.session.scram_salting(first.login)
        answer = scram.server_first(first, salting, secrets.token_urlsafe(NONCE_OCTETS))

        async def final(response: bytes) -> Challenge:
            proof = scram.client_final(response, first, answer, binding)
            found = await self._situation.session.scram_key(first.login, proof.fits)
            self._take = _acknowledged(found)
            return Challenge(proof.server_final(found.server_key))

        self._take = final
        return Challenge(answer.encode())


def _acknowledged(found: scram.KeyFound) -> Callable[[bytes], Awaitable[None]]:
    """The last step: the client has seen that the server knows the key as well."""

    async def take(response: bytes) -> None:
        if response:
            raise ScramError("other-error")
        found.accept()

    return take
