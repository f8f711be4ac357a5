"""Which recipients elsewhere mail is taken for: those that it will really be sent to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from relaymail.message.envelope import EnvelopeRecipient
from relaymail.smtp import reply
from relaymail.smtp.address import Address
from relaymail.smtp.parameters import Parameters
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.store.suppression import Suppression

REASON_CHARACTERS: Final = 300
"""Of the next host's reply: a line of ours must stay below 512 octets (RFC 5321 4.5.3.1.5)."""


class RemoteRecipients:
    """Decides about recipients that are not local, where mail is sent on at all.

    :param suppressed: tells whether an address (lower case) is suppressed. Raises ``DatabaseError``.
    :param queued: called behind each commit of a message for others.
    """

    def __init__(
        self, suppressed: Callable[[str], Awaitable[Suppression | None]], queued: Callable[[], None]
    ) -> None:
        self._suppressed = suppressed
        self.queued = queued

    async def take(self, recipient: Address, parameters: Parameters) -> EnvelopeRecipient:
        """The recipient as it goes into the envelope. Raises the refusal, and ``DatabaseError``."""
        for key in recipient.keys:
            found = await self._suppressed(key)
            if found is not None:
                raise ReplyError(_refusal(found))
        return EnvelopeRecipient(str(recipient), None, parameters, recipient.host)


def _refusal(found: Suppression) -> Reply:
    """The reply to RCPT for a suppressed address, with reason and date."""
    reason = " ".join(found.reply.split())[:REASON_CHARACTERS]
    return reply.suppressed(found.status, f"{found.since:%Y-%m-%d}", reason)
