"""What a host offers: its reply to EHLO (RFC 5321 4.1.1.1). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from relaymail.smtp.client_reply import RemoteReply

_KEYWORD: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ =]+(.*))?", re.DOTALL)
_NUMBER: Final = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a host offers. Not all of it need be true."""

    name: str = ""
    """The name the host gives itself, lower case; ``''``: none. Ours there is a loop."""
    extended: bool = False
    """It knows EHLO."""
    extensions: Mapping[str, str] = field(default_factory=dict)
    """Parameters by upper-case keyword."""

    def offers(self, keyword: str) -> bool:
        """Whether an extension is offered; ``keyword`` in upper case."""
        return keyword in self.extensions

    def without(self, *keywords: str) -> Capabilities:
        """The same but for these extensions."""
        left = {keyword: value for keyword, value in self.extensions.items() if keyword not in keywords}
        return replace(self, extensions=left)

    @property
    def size_limit(self) -> int | None:
        """Octets of the largest message the host takes; ``None``: it does not say (RFC 1870 3)."""
        limit = self.extensions.get("SIZE", "")
        return int(limit) or None if _NUMBER.fullmatch(limit) else None

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """SASL mechanisms, upper case (RFC 4954 3)."""
        return tuple(self.extensions.get("AUTH", "").upper().split())

    @property
    def most_messages(self) -> int | None:
        """Messages of a session (LIMITS MAILMAX, RFC 9422 4.1); ``None``: it does not say."""
        for word in self.extensions.get("LIMITS", "").upper().split():
            key, _, value = word.partition("=")
            if key == "MAILMAX" and _NUMBER.fullmatch(value):
                return int(value) or None
        return None


def of_ehlo(reply: RemoteReply) -> Capabilities:
    """The reply to EHLO; lines that are none are passed over."""
    extensions: dict[str, str] = {}
    for line in reply.lines[1:]:
        match = _KEYWORD.fullmatch(line.strip())
        if match is None:
            continue
        keyword, value = match[1].upper(), (match[2] or "").strip()
        if keyword == "AUTH" and keyword in extensions:
            # "AUTH=PLAIN LOGIN" stands beside "AUTH PLAIN LOGIN" for old clients' sake
            value = f"{extensions[keyword]} {value}"
        elif keyword in extensions:
            continue
        extensions[keyword] = value
    return Capabilities(_name(reply), True, extensions)


def of_helo(reply: RemoteReply) -> Capabilities:
    """The reply to HELO: nothing is offered."""
    return Capabilities(_name(reply))


def _name(reply: RemoteReply) -> str:
    return next(iter(reply.lines[0].split()), "").lower().rstrip(".")
