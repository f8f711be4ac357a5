"""What the host has stored of a message, read from its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from tests.end_to_end.host import Host

Parameters = Mapping[str, str | None]


@dataclass(frozen=True)
class Stored:
    """One message with its envelope."""

    id: UUID
    listener: str
    session: str
    tls: str | None
    sender: str
    login: UUID | None
    parameters: Parameters
    """Of MAIL."""
    recipients: Mapping[str, Parameters]
    """Each with the parameters of its RCPT."""
    raw: bytes
    """As received."""

    @property
    def body(self) -> bytes:
        """What is behind the header section."""
        return self.raw.partition(b"\r\n\r\n")[2]


def all_stored(host: Host, message_id: str) -> list[Stored]:
    """The messages with this Message-ID, oldest first."""
    rows = host.rows(
        "SELECT id, listener, session_id, tls_version, reverse_path, login_user_id, mail_parameters,"
        " (SELECT json_object_agg(address, COALESCE(parameters, '{}'::json))"
        "  FROM relaymail.envelope_recipient WHERE message_id = message.id),"
        " (SELECT string_agg(content, '' ORDER BY n) FROM relaymail.message_part"
        "  WHERE message_id = message.id)"
        " FROM relaymail.message WHERE message_id = %s ORDER BY received_at, id",
        message_id,
    )
    return [
        Stored(UUID(str(id)), listener, session, tls, sender, login, mail or {}, recipients, bytes(raw))
        for id, listener, session, tls, sender, login, mail, recipients, raw in rows
    ]


def stored(host: Host, message_id: str) -> Stored:
    """The only message with this Message-ID."""
    (found,) = all_stored(host, message_id)
    return found
