"""Which recipients elsewhere mail is taken for: those that it will really be sent to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from relaymail.message.envelope import EnvelopeRecipient
from relaymail.smtp import reply
from relaymail.smtp.address import Address
from relaymail.smtp.parameters import Parameters
from relaymail.smtp.reply import Reply, ReplyError

REASON_CHARACTERS: Final = 300
"""Of the next host's reply: a line of ours must stay below 512 octets (RFC 5321 4.5.3.1.5)."""


@dataclass(frozen=True, slots=True)
class Suppressed:
    """An address that its host has refused for good, not long ago."""

    status: str
    """The enhanced status code of that refusal, such as ``5.1.1``."""
    reply: str
    since: datetime

    @property
    def refusal(self) -> Reply:
        """The reply to RCPT."""
        reason = " ".join(self.reply.split())[:REASON_CHARACTERS]
        return reply.suppressed(self.status, f"{self.since:%Y-%m-%d}", reason)


class RemoteRecipients:
    """Decides about recipients that are not local, where mail is sent on at all.

    :param suppressed: tells whether an address (lower case) is suppressed. Raises ``DatabaseError``.
    """

    def __init__(self, suppressed: Callable[[str], Awaitable[Suppressed | None]]) -> None:
        self._suppressed = suppressed

    async def take(self, recipient: Address, parameters: Parameters) -> EnvelopeRecipient:
        """The recipient as it goes into the envelope. Raises the refusal, and ``DatabaseError``."""
        for key in recipient.keys:
            found = await self._suppressed(key)
            if found is not None:
                raise ReplyError(found.refusal)
        return EnvelopeRecipient(str(recipient), None, parameters, recipient.host)
