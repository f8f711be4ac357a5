"""From a reply to what becomes of a recipient (RFC 5321 4.2.1). Pure."""

from __future__ import annotations

from typing import Final

from relaymail.smtp.client_errors import Broken
from relaymail.smtp.client_mail import Outcome, Phase, Verdict
from relaymail.smtp.client_reply import RemoteReply

_VERDICTS: Final[dict[int, Verdict]] = {2: "delivered", 4: "deferred", 5: "failed"}

_WHY: Final[dict[str, str]] = {
    "rset": "the host refused to begin a new message",
    "mail": "the host refused the sender",
    "rcpt": "the host refused the recipient",
    "data": "the host refused the message before it was sent",
    "transfer": "the host refused the message while it was being sent",
    "final-dot": "the host refused the message",
}


def of_refusal(reply: RemoteReply, phase: Phase, *, among_accepted: bool = False) -> Outcome:
    """What a 4xx or 5xx means.

    :param among_accepted: of RCPT: others of the message were accepted before, so that a 552 without a more
        exact status says that they are too many (RFC 5321 4.5.3.1.10).
    """
    if phase == "rcpt" and reply.code == 552 and among_accepted and reply.enhanced in (None, "5.5.3"):
        return Outcome("deferred", "4.5.3", reply, phase, "the host takes no more recipients at a time")
    return Outcome(_VERDICTS[reply.code // 100], reply.status, reply, phase, _WHY[phase])


def of_acceptance(reply: RemoteReply, *, dsn: bool) -> Outcome:
    """The 2xx at the end of a message."""
    return Outcome("delivered", reply.status, reply, "final-dot", "delivered", dsn_taken_over=dsn)


def of_break(broken: Broken, phase: Phase) -> Outcome:
    """The connection broke. Behind the end of the message nobody knows what the host did with it."""
    return Outcome("deferred", broken.status, broken.reply, phase, broken.why, in_doubt=phase == "final-dot")
