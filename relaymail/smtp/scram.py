"""The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677): messages and proofs. Pure.

An exchange is three values in a row: :func:`client_first` reads the client's first message,
:func:`server_first` makes the answer, :func:`client_final` reads the second and returns a :class:`Proof`,
which is held against stored keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from relaymail.smtp.saslprep import saslprep

TLS_EXPORTER: Final = "tls-exporter"
"""Channel binding of RFC 9266: keying material that only the two ends of a connection have."""
TLS_SERVER_END_POINT: Final = "tls-server-end-point"
"""Channel binding of RFC 5929 4: the hash of the server's certificate."""

DIGEST: Final = "sha256"
KEY_OCTETS: Final = 32

_NONCE: Final = r"[\x21-\x2b\x2d-\x7e]+"
_EXTENSIONS: Final = r"(?:,[A-Za-z]=[^,]+)*"
_GS2_HEADER: Final = re.compile(r"(?:([ny])|p=([A-Za-z0-9.-]+)),(?:a=([^,]*))?,")
_CLIENT_FIRST_BARE: Final = re.compile(rf"n=([^,]+),r=({_NONCE}){_EXTENSIONS}")
_CLIENT_FINAL: Final = re.compile(rf"(c=([A-Za-z0-9+/=]+),r=({_NONCE}){_EXTENSIONS}),p=([A-Za-z0-9+/=]+)")
_BAD_ESCAPE: Final = re.compile(r"=(?!2C|3D)")


class ScramError(Exception):
    """The exchange has failed; the text is a ``server-error-value`` of RFC 5802 7 and holds nothing of the
    client's."""


@dataclass(frozen=True, slots=True)
class Salting:
    """What the client derives its key with (RFC 5802 3): the same for all keys of a user."""

    salt: bytes
    iterations: int


@dataclass(frozen=True, slots=True)
class KeyFound:
    """A key that a proof fits."""

    server_key: bytes
    accept: Callable[[], None]
    """Makes the login the session's. Not before the client has seen that the server has the key too: it may
    break the exchange off."""


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """What the client begins with."""

    header: str
    """The GS2 header, which binds the channel together with the final message."""
    supports_binding: bool
    """The client could bind the channel but was not offered to (flag ``y``)."""
    binding: str | None
    """The type of channel binding it uses (flag ``p``)."""
    login: str
    nonce: str
    bare: str
    """The message without its header, for the proof."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows that the client has a key, and lets the server show the same."""

    message: bytes
    """``AuthMessage``: all that was said (RFC 5802 3)."""
    proof: bytes

    def fits(self, stored_key: bytes) -> bool:
        """Whether the client's key is the one ``StoredKey`` was made of. Takes the same time either way."""
        signature = hmac.digest(stored_key, self.message, DIGEST)
        client_key = bytes(a ^ b for a, b in zip(self.proof, signature, strict=True))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), stored_key)

    def server_final(self, server_key: bytes) -> bytes:
        """The last message: the server has the key's verifier too."""
        return b"v=" + base64.b64encode(hmac.digest(server_key, self.message, DIGEST))


def client_first(message: bytes) -> ClientFirst:
    """Read ``client-first-message`` (RFC 5802 7).

    :raises ScramError: it is none, or asks for something that there is not.
    """
    text = _text(message)
    header = _GS2_HEADER.match(text)
    if header is None:
        raise ScramError("other-error")
    bare = text[header.end() :]
    if bare.startswith("m="):
        # A mandatory extension, and there is none that we know (RFC 5802 5.1)
        raise ScramError("extensions-not-supported")
    fields = _CLIENT_FIRST_BARE.fullmatch(bare)
    if fields is None:
        raise ScramError("other-error")
    login = _name(fields[1])
    # Nobody acts as somebody else here: an authorization identity must be the login itself. An empty one is
    # not in the grammar, but GNU SASL sends it
    if header[3] and _name(header[3]).lower() != login.lower():
        raise ScramError("other-error")
    return ClientFirst(header[0], header[1] == "y", header[2], login, fields[2], bare)


def check_binding(first: ClientFirst, *, plus: bool, plus_offered: bool) -> None:
    """Whether the flag of channel binding goes with the mechanism that was chosen (RFC 5802 6).

    :param plus: the client has chosen ``SCRAM-SHA-256-PLUS``.
    :param plus_offered: it was offered ``SCRAM-SHA-256-PLUS``.
    :raises ScramError: it does not. A client that binds channels and believes that we do not has not seen our
        offer as we sent it.
    """
    if plus and first.binding is None:
        raise ScramError("channel-bindings-dont-match")
    if not plus and first.binding is not None:
        raise ScramError("channel-binding-not-supported")
    if first.supports_binding and plus_offered:
        raise ScramError("server-does-support-channel-binding")


def server_first(first: ClientFirst, salting: Salting, nonce: str) -> str:
    """``server-first-message``, with ``nonce`` as the server's part of it: random, printable, no comma."""
    salt = base64.b64encode(salting.salt).decode()
    return f"r={first.nonce}{nonce},s={salt},i={salting.iterations}"


def client_final(message: bytes, first: ClientFirst, answer: str, binding: bytes) -> Proof:
    """Read ``client-final-message`` behind ``answer``, the ``server-first-message``.

    :param binding: the data of the channel binding that ``first`` named; empty without one.
    :raises ScramError: it is none, or does not belong to what was said before.
    """
    fields = _CLIENT_FINAL.fullmatch(_text(message))
    if fields is None:
        raise ScramError("other-error")
    unproven, bound, nonce, proof = fields.groups()
    if not hmac.compare_digest(_octets(bound), first.header.encode() + binding):
        raise ScramError("channel-bindings-dont-match")
    if not hmac.compare_digest(f"r={nonce}", answer.partition(",")[0]):
        raise ScramError("other-error")
    given = _octets(proof)
    if len(given) != KEY_OCTETS:
        raise ScramError("invalid-proof")
    return Proof(f"{first.bare},{answer},{unproven}".encode(), given)


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ScramError("invalid-encoding") from None


def _name(text: str) -> str:
    """A ``saslname``: commas and equals signs are escaped in it (RFC 5802 5.1)."""
    if _BAD_ESCAPE.search(text):
        raise ScramError("invalid-username-encoding")
    try:
        name = saslprep(text.replace("=2C", ",").replace("=3D", "="))
    except ValueError:
        raise ScramError("invalid-username-encoding") from None
    if not name:
        raise ScramError("invalid-username-encoding")
    return name


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ScramError("other-error") from None
