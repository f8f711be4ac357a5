"""The SASL mechanisms that carry a password: PLAIN (RFC 4616) and LOGIN. Pure; the engine moves the lines."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from relaymail.smtp import reply
from relaymail.smtp.reply import ReplyError


@dataclass(frozen=True, slots=True)
class Credentials:
    """What an exchange ends with. The password stays out of every repr."""

    login: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(login={self.login!r})"


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the client is to answer next; sent in base64 behind 334."""

    text: bytes


Step = Challenge | Credentials | Awaitable[Challenge | None]
"""What is next: a challenge, a password to be checked, or something to wait for, which ends in a challenge
or, with ``None``, in a login."""


class Mechanism(Protocol):
    """One exchange: fed the client's decoded responses until it is known who that is."""

    def respond(self, response: bytes | None) -> Step:
        """Take a response (``None``: the client sent no initial response) and say what is next."""


class Plain:
    """``authzid NUL authcid NUL password`` in one response (RFC 4616 2)."""

    def respond(self, response: bytes | None) -> Challenge | Credentials:
        if response is None:
            return Challenge(b"")
        fields = response.split(b"\0")
        if len(fields) != 3:
            raise ReplyError(reply.AUTHENTICATION_FAILED)
        authorization, login, password = fields
        # Nobody acts as somebody else here: an authorization identity must be the login itself
        if authorization and authorization.lower() != login.lower():
            raise ReplyError(reply.AUTHENTICATION_FAILED)
        return Credentials(_text(login), _text(password))


class Login:
    """Login and password in two responses, as old clients do it."""

    def __init__(self) -> None:
        self._login: str | None = None

    def respond(self, response: bytes | None) -> Challenge | Credentials:
        if response is None:
            return Challenge(b"Username:")
        if self._login is None:
            self._login = _text(response)
            return Challenge(b"Password:")
        return Credentials(self._login, _text(response))


MECHANISMS: Final[Mapping[str, Callable[[], Plain | Login]]] = {"PLAIN": Plain, "LOGIN": Login}
"""Those that need nothing but the client's responses."""


def decode(line: str | bytes) -> bytes:
    """One response out of base64. Raises the refusals for ``*`` and for what is no base64 (RFC 4954 4)."""
    if isinstance(line, bytes):
        line = line.decode("latin-1")
    if line == "*":
        raise ReplyError(reply.AUTHENTICATION_CANCELLED)
    if line == "=":
        return b""
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise ReplyError(reply.BAD_BASE64) from None


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise ReplyError(reply.AUTHENTICATION_FAILED) from None
