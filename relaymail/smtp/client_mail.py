"""What is to be sent, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from relaymail.smtp.client_reply import RemoteReply

Verdict = Literal["delivered", "deferred", "failed"]

Phase = Literal[
    "connect",
    "greeting",
    "ehlo",
    "starttls",
    "auth",
    "rset",
    "local",
    "mail",
    "rcpt",
    "data",
    "transfer",
    "before-dot",
    "final-dot",
]
"""How far a connection or a transaction had come. ``local``: it was decided here, nothing was sent.
``transfer``: between ``354`` and the end of the message. ``before-dot``: our own side said no."""

Conversion = Literal["7bit", "8bit"]
"""What a message has to be made of before it can be sent: without octets over 127, or without ``binary``
parts."""


@dataclass(frozen=True, slots=True)
class MailRecipient:
    """One RCPT."""

    address: str
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    """RCPT parameters by upper-case name as they were given to us; NOTIFY and ORCPT are passed on."""


@dataclass(frozen=True, slots=True)
class Mail:
    """Envelope of a message and what must be known of its content in advance."""

    reverse_path: str
    """``''`` is the null sender."""
    recipients: tuple[MailRecipient, ...]
    """At least one."""
    size: int
    """Octets of the message as it is going to be sent; an estimate is good enough before it is signed."""
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    """MAIL parameters by upper-case name as they were given to us. RET, ENVID, REQUIRETLS and SMTPUTF8 are
    passed on; SIZE, BODY and the need for SMTPUTF8 are worked out of the other fields; the rest
    (MT-PRIORITY, HOLDFOR, HOLDUNTIL, AUTH …) is not for the next host."""
    eight_bit: bool = False
    """The body holds octets over 127."""
    utf8_header: bool = False
    """The header section does."""
    binary: bool = False
    """It is BINARYMIME (RFC 3030): a bare CR or LF, a NUL or a line over 998 octets may be in it, and a
    conversion is needed where the host does not take that."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recipient."""

    verdict: Verdict
    status: str
    """Enhanced status code (RFC 3463); its class is that of the verdict."""
    reply: RemoteReply | None
    """What the host said; ``None`` where it said nothing, or was not asked."""
    phase: Phase
    why: str
    """For people, without the reply's text: what was refused, or what happened."""
    in_doubt: bool = False
    """Deferred, but the host may have taken the message: the end of it was sent and no reply came. The next
    attempt may make a duplicate."""
    dsn_taken_over: bool = False
    """Delivered to a host that offers DSN (RFC 3461 5.2.2): reporting is its duty now. Where this is false
    and NOTIFY has SUCCESS, a ``relayed`` report is owed."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a host wants of a message, known before the message is read."""

    conversion: Conversion | None = None
    """The message must be recoded to this (:mod:`relaymail.message.recode`) before it is signed and sent."""
    refusals: Mapping[int, Outcome] = field(default_factory=dict)
    """Recipients (by index) that cannot be sent to this host, whatever is done. ``send`` says the same."""
