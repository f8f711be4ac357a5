"""The trace headers put in front of a message (RFC 5321 4.4)."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final
from uuid import UUID

from relaymail.message.envelope import Envelope, Origin

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._:\[\]-]")


@lru_cache(maxsize=4)
def _date(at: datetime) -> str:
    """RFC 5322 3.3; formatting a date costs more than all else here, and many messages come in one second."""
    return format_datetime(at)


def trace_headers(
    message_id: UUID, at: datetime, server_name: str, origin: Origin, envelope: Envelope
) -> bytes:
    """``Return-Path:`` (final delivery only: on the MX) and ``Received:``, each line ended with CRLF.

    The recipient is named only where there is one: more would tell each of the others (RFC 5321 7.6). ``at``
    must be aware.
    """
    client = _UNSAFE.sub("?", origin.client_name)[:255]
    literal = f"IPv6:{origin.client_address}" if ":" in origin.client_address else origin.client_address
    lines = [
        f"Received: from {client} ([{literal}])",
        f"\tby {server_name} with {_protocol(origin, envelope)}",
    ]
    if origin.tls_version:
        lines.append(f"\t({origin.tls_version} {origin.tls_cipher})")
    lines.append(f"\tid {message_id}")
    if len(envelope.recipients) == 1:
        lines.append(f"\tfor <{envelope.recipients[0].address}>")
    lines[-1] += ";"
    lines.append(f"\t{_date(at.replace(microsecond=0))}")
    if origin.listener == "mx":
        lines.insert(0, f"Return-Path: <{envelope.reverse_path}>")
    return "\r\n".join([*lines, ""]).encode("utf-8", "replace")


def _protocol(origin: Origin, envelope: Envelope) -> str:
    """The registered name (RFC 3848; RFC 6531 4.3 for internationalized mail)."""
    if "SMTPUTF8" in envelope.parameters:
        return origin.protocol.replace("ESMTP", "UTF8SMTP")
    return origin.protocol
