"""Messages to send."""

from __future__ import annotations

import secrets


def message(
    *fields: str, body: str = "Hello\r\n", sender: str = "friend@example.org", message_id: str | None = None
) -> bytes:
    """A message with these header fields (``Subject: …``) beside From and Message-ID."""
    lines = [
        f"From: {sender}",
        f"Message-ID: <{message_id or new_message_id()}>",
        *fields,
        "",
        body,
    ]
    return "\r\n".join(lines).encode()


def new_message_id() -> str:
    """One that nobody else has."""
    return f"{secrets.token_hex(12)}@client.test"
