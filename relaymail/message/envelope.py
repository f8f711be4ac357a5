"""The envelope of a message and the facts of the session it came in (RFC 5321 2.3.1, 5598 2.2).

These and the record are made for every message: structs take a fifth of the time of frozen data classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from msgspec import Struct, field


class EnvelopeRecipient(Struct, frozen=True):
    """One accepted RCPT, as given."""

    address: str
    user_id: UUID | None = None
    """The local user it reaches; ``None`` for a local address without an owner, and for a remote one."""
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    """RCPT parameters by upper-case name (DSN, RFC 3461)."""
    destination: str | None = None
    """Where it is sent on to: a domain in lower case, as A-labels, or an address literal. ``None``: local."""


class Envelope(Struct, frozen=True):
    """Who sent it and whom it reaches."""

    reverse_path: str
    """``''`` is the null sender."""
    recipients: tuple[EnvelopeRecipient, ...]
    parameters: Mapping[str, str | None] = field(default_factory=dict)
    """MAIL parameters by upper-case name."""


class Origin(Struct, frozen=True):
    """From where, over what and as whom a message came in."""

    listener: str
    session_id: str
    client_address: str
    client_name: str
    """As given to EHLO or HELO."""
    extended: bool = True
    """Whether it was EHLO."""
    login_user_id: UUID | None = None
    tls_version: str | None = None
    tls_cipher: str | None = None

    @property
    def protocol(self) -> str:
        """The name for the Received: header (RFC 3848)."""
        if not self.extended:
            return "SMTP"
        return f"ESMTP{'S' if self.tls_version else ''}{'A' if self.login_user_id else ''}"
