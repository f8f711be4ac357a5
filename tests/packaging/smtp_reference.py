"""The tables of ``docs/reference/smtp.md`` that are made of the code:
``python -m tests.packaging.smtp_reference`` writes them into the page."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any, Final

from relaymail.settings import load
from relaymail.smtp import reply
from relaymail.smtp.policy import Limits
from relaymail.smtp.reply import Reply

PAGE: Final = Path(__file__).parents[2] / "docs/reference/smtp.md"

MADE: Final = {
    "greeting": [reply.greeting("HOST")],
    "stored": [reply.stored("ID")],
    "chunk_taken": [reply.chunk_taken(42)],
    "syntax": [reply.syntax("...")],
    "unsupported_option": [reply.unsupported_option("NAME")],
    "bad_sender": [reply.bad_sender("...")],
    "bad_recipient": [reply.bad_recipient("...")],
    "suppressed": [reply.suppressed("5.1.1", "2026-11-01", "...")],
    "connecting_too_fast": [reply.connecting_too_fast(42)],
    "sending_too_fast": [reply.sending_too_fast(what, 42) for what in ("messages", "recipients")],
}
"""An example of what each function of ``relaymail.smtp.reply`` makes."""

LIMITS: Final = (
    ("local part, domain, path of an address", "64, 255, 256 octets", "bad_sender", "bad_recipient"),
    ("command line", f"{Limits().command_line} octets", "LINE_TOO_LONG"),
    ("line of AUTH", f"{Limits().auth_line} octets", "AUTH_LINE_TOO_LONG"),
    ("text line of a message", "Smtp:Limits:LineLength", "TEXT_LINE_TOO_LONG"),
    ("message", "Smtp:MaxMessageSizeBytes", "MESSAGE_TOO_BIG"),
    ("header section", "Smtp:Limits:HeaderBytes", "HEADER_TOO_BIG"),
    ("attachment, decoded", "Smtp:MaxAttachmentSizeBytes", "ATTACHMENT_TOO_BIG"),
    ("`Received:` fields", "Smtp:Limits:Hops", "TOO_MANY_HOPS"),
    ("recipients of a message, MX", "Smtp:Limits:Recipients:Mx", "TOO_MANY_RECIPIENTS"),
    ("recipients of a message, submission", "Smtp:Limits:Recipients:Submission", "TOO_MANY_RECIPIENTS"),
    ("recipients of the null sender", str(Limits().null_sender_recipients), "TOO_MANY_RECIPIENTS"),
    ("messages of a session *", "Smtp:Limits:MessagesPerSession", "TOO_MANY_MESSAGES"),
    ("errors of a session", "Smtp:Limits:Errors", "TOO_MANY_ERRORS"),
    ("NOOP, RSET, VRFY without a message stored between", "Smtp:Limits:JunkCommands", "TOO_MANY_ERRORS"),
    ("failed AUTH of a session", str(Limits().authentications), "TOO_MANY_AUTHENTICATIONS"),
    ("failed AUTH of a client", "Security:RateLimit:MaxFailedAttempts", "TOO_MANY_AUTHENTICATIONS"),
    ("connections in all", "Smtp:Limits:Connections", "TOO_MANY_CONNECTIONS"),
    ("connections of a client, MX *", "Smtp:Limits:ConnectionsPerClient:Mx", "TOO_MANY_FROM_CLIENT"),
    (
        "connections of a client, submission *",
        "Smtp:Limits:ConnectionsPerClient:Submission",
        "TOO_MANY_FROM_CLIENT",
    ),
    ("new connections of a client a minute, MX *", "Smtp:Limits:ConnectionsPerMinute", "connecting_too_fast"),
    ("messages of a client a minute, MX *", "Smtp:Limits:MessagesPerMinute", "sending_too_fast"),
    ("recipients of a client a minute, MX *", "Smtp:Limits:RecipientsPerMinute", "sending_too_fast"),
)
"""What is limited, a setting or the limit itself, and what is said."""

TIMEOUTS: Final = (
    ("a command", "Command", "`421 4.4.2`"),
    ("a command, while over 80 % of the connections are used", "CommandUnderLoad", "`421 4.4.2`"),
    ("a line of AUTH", "AuthLine", "`421 4.4.2`"),
    ("more of a message", "DataIdle", "`421 4.4.2`"),
    ("octets per second of a message, behind its first minute", "DataMinimumRate", "`421 4.4.2`"),
    ("the whole session", "Session", "`421 4.4.2`"),
    ("a TLS handshake", "Handshake", "closed"),
    ("the PROXY header", "ProxyHeader", "closed"),
    ("our own work, behind the final dot and before", "Store", "`451 4.3.0`"),
    ("messages in progress when the host stops", "Drain", "closed without a reply"),
)
"""What is waited for, the setting below ``Smtp:Timeouts``, and what follows."""


def tables() -> dict[str, str]:
    """Each table by its name in the page."""
    return {
        "replies": "\n".join(["| Reply | When |", "|---|---|", *_replies()]),
        "limits": "\n".join(["| What | Default | Setting | Over it |", "|---|---|---|---|", *_limits()]),
        "timeouts": "\n".join(["| For | Default | Setting | Then |", "|---|---|---|---|", *_timeouts()]),
    }


def filled(page: str) -> str:
    """The page with its tables made anew."""
    for name, table in tables().items():
        before, mark, behind = page.partition(f"<!-- table: {name} -->\n")
        _, end, behind = behind.partition("<!-- end -->\n")
        if not mark or not end:
            raise SystemExit(f"{PAGE} has no place for the table {name}")
        page = f"{before}{mark}{table}\n{end}{behind}"
    return page


def _replies() -> Iterator[str]:
    rows = [(made, told) for name, told in _told().items() for made in _examples(name)]
    for made, told in sorted(rows, key=lambda row: (row[0].code, row[0].enhanced or "")):
        closes = "; closes" if made.closes and made.code != 421 else ""
        yield f"| `{made.data.decode().rstrip()}` | {told}{closes} |"


def _examples(name: str) -> list[Reply]:
    value = getattr(reply, name)
    return [value] if isinstance(value, Reply) else MADE[name]


def _told() -> dict[str, str]:
    """When each reply is sent: the text below a constant, or a function's first sentence."""
    found: dict[str, str] = {}
    body = ast.parse(inspect.getsource(reply)).body
    for node, below in zip(body, [*body[1:], None], strict=True):
        match node, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
            case ast.AnnAssign(target=ast.Name(id=name)), _:
                raise SystemExit(f"relaymail/smtp/reply.py does not say when {name} is sent")
            case ast.FunctionDef(name=name), _ if not name.startswith("_"):
                found[name] = re.sub(r"\s+", " ", ast.get_docstring(node) or "").replace("``", "`")
    return {name: text.removesuffix(".") for name, text in found.items()}


def _limits() -> Iterator[str]:
    for what, limit, *replies in LIMITS:
        default, setting = (_default(limit), f"`{limit}`") if ":" in limit else (limit, "")
        said = " / ".join(sorted({_start(name) for name in replies}))
        yield f"| {what} | {default} | {setting} | {said} |"


def _start(name: str) -> str:
    first = _examples(name)[0]
    return f"`{first.code} {first.enhanced}`"


def _timeouts() -> Iterator[str]:
    for what, key, then in TIMEOUTS:
        full = f"Smtp:Timeouts:{key}"
        unit = "" if key == "DataMinimumRate" else " s"
        yield f"| {what} | {_default(full)}{unit} | `{full}` | {then} |"


def _default(key: str) -> str:
    snake = [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", part).lower() for part in key.split(":")]
    value: Any = reduce(getattr, snake, load(None, {}, demo=True).settings)
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(filled(page))
    sys.stdout.write(f"{PAGE}: {'up to date' if PAGE.read_text() == page else 'changed'}\n")
