"""The part of a report that people read: what happened, to whom, what the other host said, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from relaymail.message.dsn_part import Part, one_line
from relaymail.message.dsn_request import Action
from relaymail.message.dsn_status import ReportedRecipient

MOST_SHOWN: Final = 50
"""Recipients told of one by one; all are in the part for programs."""
_CRLF: Final = "\r\n"
_WIDTH: Final = 100
_LONGEST: Final = 200
"""Characters of a line without a space; each has up to four octets."""

_HEADLINE: Final[dict[Action, tuple[str, str]]] = {
    "failed": (
        "Your message could not be delivered to this recipient:",
        "Your message could not be delivered to these recipients:",
    ),
    "delayed": (
        "Your message has not been delivered to this recipient yet:",
        "Your message has not been delivered to these recipients yet:",
    ),
    "delivered": (
        "Your message was delivered to this recipient:",
        "Your message was delivered to these recipients:",
    ),
    "relayed": (
        "Your message was handed on for this recipient:",
        "Your message was handed on for these recipients:",
    ),
    "expanded": (
        "Your message was delivered to this list, which sends it on:",
        "Your message was delivered to these lists, which send it on:",
    ),
}
_CONCLUSION: Final[dict[Action, str]] = {
    "failed": "We do not try again. If it is still to get there, it has to be sent anew.",
    "delayed": "You need not do anything, and should not send it again.",
    "delivered": "",
    "relayed": "The next host does not tell of deliveries: you will hear no more of it.",
    "expanded": "You will not be told who of its members got it.",
}
_ADVICE: Final[dict[str, str]] = {
    "1.1": "This address does not exist there. Look for a slip in the part before the @.",
    "1.2": "The domain of this address does not exist, or takes no mail. Look for a slip behind the @.",
    "1.3": "This is no valid address. Look for a slip in it.",
    "1.6": "The mailbox has moved. Ask the recipient for the new address.",
    "1.10": "The domain of this address takes no mail at all. Look for a slip behind the @.",
    "2.1": "The mailbox is closed. Ask the recipient in another way.",
    "2.2": "The mailbox is full. Tell the recipient in another way, or try again later.",
    "2.3": "The message is too big for this mailbox. Send it in parts, or a link to what is in it.",
    "3.4": "The message is too big for that host. Send it in parts, or a link to what is in it.",
    "4.1": "The other host does not answer.",
    "4.3": "The route to this domain could not be found out.",
    "4.4": "The domain of this address does not exist, or takes no mail. Look for a slip behind the @.",
    "4.6": "The message would go in a circle. Tell whoever looks after the recipient's domain.",
    "4.7": "The other host could not be reached for too long, or kept us waiting.",
    "6.7": "That host takes no addresses with letters beyond ASCII. Ask for a plain address.",
    "7.1": "The other host refuses the message by its rules. Its words above may say which.",
    "7.10": "The message was only to be sent encrypted, and the other host does not do that.",
    "7.30": "The message was only to be sent encrypted all the way, and the other host does not do that.",
}


def text_part(server_name: str, subject: str, recipients: Sequence[ReportedRecipient]) -> Part:
    """The first part of the report."""
    lines = [f"This is the mail system at {server_name}.", "", *_about(subject)]
    actions = dict.fromkeys(recipient.action for recipient in recipients)
    for action in actions:
        lines += _section(action, [r for r in recipients if r.action == action])
    lines += [
        "The second part of this report is for programs. The third is your message, or its header.",
        "",
    ]
    text = _CRLF.join(lines)
    charset = "us-ascii" if text.isascii() else "utf-8"
    return Part(f"text/plain; charset={charset}", text.encode("utf-8", "replace"), description="Notification")


def _about(subject: str) -> list[str]:
    return [f"It is about your message with the subject: {one_line(subject, 200)}", ""] if subject else []


def _section(action: Action, recipients: Sequence[ReportedRecipient]) -> Iterator[str]:
    one, many = _HEADLINE[action]
    yield one if len(recipients) == 1 else many
    yield ""
    for recipient in recipients[:MOST_SHOWN]:
        yield from _recipient(recipient)
    if len(recipients) > MOST_SHOWN:
        yield f"  ... and {len(recipients) - MOST_SHOWN} more, whom the second part names."
        yield ""
    until = max((r.retry_until for r in recipients if r.retry_until is not None), default=None)
    if action == "delayed":
        yield f"We go on trying{'' if until is None else f' until {_moment(until)}'}."
        if until is not None:
            yield "If it has not got there by then, you will be told."
    if _CONCLUSION[action]:
        yield _CONCLUSION[action]
        yield ""


def _recipient(recipient: ReportedRecipient) -> Iterator[str]:
    yield f"  {one_line(recipient.address, 400)}"
    if recipient.original is not None and recipient.original[1] != recipient.address:
        yield f"    (given by you as {one_line(recipient.original[1], 400)})"
    lines = recipient.reply_lines
    if lines and recipient.action in ("failed", "delayed"):
        host = one_line(recipient.host or "", 255)
        yield f"    The host {host} said:" if recipient.remote else "    The reason:"
        for line in lines:
            yield from (f"      {piece}" for piece in _pieces(line))
    elif recipient.host is not None:
        yield f"    Next host: {one_line(recipient.host, 255)}"
    advice = _ADVICE.get(recipient.code.partition(".")[2])
    if advice is not None and recipient.action == "failed":
        yield f"    {advice}"
    yield ""


def _pieces(line: str) -> Iterator[str]:
    """The line as it is, cut at spaces where there are some: a mail has short ones (RFC 5322 2.1.1)."""
    while len(line) > _WIDTH:
        cut = line.rfind(" ", _WIDTH // 2, _WIDTH) + 1 or _LONGEST
        yield line[:cut].rstrip(" ")
        line = line[cut:]
    if line:
        yield line


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%A, %d %B %Y, %H:%M UTC")
