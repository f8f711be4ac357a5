"""DKIM signatures (RFC 6376, 8301, 8463): made of the form in which a message is sent, in one pass over it.

Relaxed in header and body, ``rsa-sha256`` and ``ed25519-sha256``, always the whole body. A field that is
named once more in ``h=`` than the message has it is sealed: it cannot be added on the way (RFC 6376 8.15).
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Final

from relaymail.message import addresses, dkim_keys
from relaymail.message.canonical import BodyHash, relaxed_field
from relaymail.message.headers import text_of
from relaymail.message.limits import Budget, Exhausted, ParseLimits
from relaymail.smtp.address import ascii_domain

SigningKey = dkim_keys.SigningKey

HEADER_OCTETS: Final = 1024 * 1024
"""Longest header section that is signed; the listeners accept a quarter of it."""
MOST_FIELDS: Final = 300
"""Fields of a message that are signed at most; one with more of them is sent unsigned."""

_ALWAYS: Final = (
    "from", "to", "cc", "subject", "date", "message-id", "reply-to", "in-reply-to", "references",
)  # fmt: skip
"""Signed and sealed, whether the message has them or not: nobody adds them on the way with good intent."""
_IF_PRESENT: Final = ("sender", "mime-version", "content-type", "content-transfer-encoding")
"""Sealed where the message has them: lists and gateways add them."""
_AS_THEY_ARE: Final = (
    "content-id", "content-description", "content-disposition", "content-language", "auto-submitted",
    "resent-from", "resent-sender", "resent-to", "resent-cc", "resent-date", "resent-message-id",
    "list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe", "list-post",
    "list-owner", "list-archive",
)  # fmt: skip
"""Signed as often as the message has them (RFC 6376 5.4.1)."""
_SIGNED: Final = frozenset(name.encode() for name in (*_ALWAYS, *_IF_PRESENT, *_AS_THEY_ARE))

_CRLF: Final = b"\r\n"
_END: Final = b"\r\n\r\n"
_LINE: Final = 76


class Unsignable(Exception):
    """The message cannot be signed, and never will be; the text says why."""


class SignedForm:
    """One message on its way to being signed: feed it, look up :attr:`domain`, :meth:`sign`.

    Feed it what is sent, with every line end a CRLF, from the first octet of the header section.
    """

    __slots__ = ("_body", "_domain", "_fields", "_header", "_searched")

    def __init__(self) -> None:
        self._header: bytearray | None = bytearray()
        self._searched = 0
        self._fields: dict[bytes, list[bytes]] = {}
        self._domain: str | None = None
        self._body = BodyHash()

    @property
    def header_read(self) -> bool:
        """Whether the header section has ended, so that :attr:`domain` is known."""
        return self._header is None

    @property
    def domain(self) -> str | None:
        """The domain of the (first) author, lower-case A-labels; ``None`` where From: names none."""
        return self._domain

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises Unsignable: the header section is too long, or has too many fields.
        """
        header = self._header
        if header is None:
            self._body.feed(data)
            return
        header += data
        if header.startswith(_CRLF):
            self._begin_body(0, 2)
            return
        end = header.find(_END, self._searched)
        if end >= 0:
            self._begin_body(end + 2, end + 4)
        elif len(header) > HEADER_OCTETS:
            raise Unsignable(f"its header section is longer than {HEADER_OCTETS} octets")
        else:
            self._searched = max(0, len(header) - len(_END) + 1)

    def finish(self) -> None:
        """There are no more bytes. Raises :exc:`Unsignable`."""
        if self._header is not None:
            self._begin_body(len(self._header), len(self._header))

    def sign(self, keys: Sequence[SigningKey], at: int) -> bytes:
        """The ``DKIM-Signature:`` fields, one for each key in its order, each line ended with CRLF.

        Behind :meth:`finish`. ``at`` is the time in seconds since 1970. An RSA key of 2048 bits takes 0.8 ms,
        one of 4096 bits 5 ms, Ed25519 0.05 ms, and no thread runs beside it: the library holds Python's lock.
        ``b""`` without keys, and where the message has no From: to be signed.
        """
        if b"from" not in self._fields or not keys:
            return b""
        names, signed = self._to_be_signed()
        body_hash = b64encode(self._body.digest()).decode()
        made = []
        for key in keys:
            unsigned = _unsigned_field(key, names, body_hash, at)
            canonical = relaxed_field(unsigned).removesuffix(_CRLF)
            signature = b64encode(key.sign(hashlib.sha256(signed + canonical).digest())).decode()
            made.append(unsigned + _folded(signature, len("\tb=")).encode() + _CRLF)
        return b"".join(made)

    def _begin_body(self, end: int, body: int) -> None:
        header = self._header
        assert header is not None
        self._header = None
        count = 0
        for field in _fields(bytes(header[:end])):
            name = field.partition(b":")[0].rstrip(b" \t").lower()
            if name in _SIGNED:
                count += 1
                self._fields.setdefault(name, []).append(field)
        if count > MOST_FIELDS:
            raise Unsignable(f"it has {count} fields that would have to be signed")
        self._domain = _author_domain(self._fields.get(b"from", []))
        self._body.feed(bytes(header[body:]))

    def _to_be_signed(self) -> tuple[list[str], bytes]:
        """The names for ``h=``, and the fields in that order in canonical form."""
        names: list[str] = []
        canonical: list[bytes] = []
        for name in (*_ALWAYS, *_IF_PRESENT, *_AS_THEY_ARE):
            # Of several fields of one name the last is taken first (RFC 6376 5.4.2)
            fields = self._fields.get(name.encode(), [])[::-1]
            names += [name] * len(fields)
            canonical += [relaxed_field(field) for field in fields]
            if name in _ALWAYS or (fields and name in _IF_PRESENT):
                names.append(name)
        return names, b"".join(canonical)


def _fields(section: bytes) -> Iterator[bytes]:
    """The fields of a header section, folds and line ends included."""
    lines: list[bytes] = []
    for line in section.split(_CRLF):
        if line[:1] in (b" ", b"\t") and lines:
            lines.append(line)
            continue
        if lines:
            yield _CRLF.join(lines)
        lines = [line] if b":" in line else []
    if lines:
        yield _CRLF.join(lines)


def _author_domain(fields: Sequence[bytes]) -> str | None:
    """The domain of the first address of the first From: field that has one."""
    budget = Budget(ParseLimits(seconds=0.05), lambda: 0.0)
    try:
        for field in fields:
            value = field.partition(b":")[2].replace(_CRLF, b"")[: budget.limits.field_bytes]
            for mailbox in addresses.parse(text_of(value.strip(b" \t")), budget):
                domain = mailbox.address.rpartition("@")[2]
                if domain and not domain.startswith("["):
                    return ascii_domain(domain)
    except Exhausted:
        pass
    return None


def _unsigned_field(key: SigningKey, names: Sequence[str], body_hash: str, at: int) -> bytes:
    """The signature's own field up to and with ``b=`` (RFC 6376 3.5)."""
    lines = [
        f"DKIM-Signature: v=1; a={key.algorithm}-sha256; c=relaxed/relaxed;",
        f"\td={key.domain}; s={key.selector}; t={at};",
    ]
    line = "\th="
    for number, name in enumerate(names):
        piece = name + (":" if number < len(names) - 1 else ";")
        if len(line) + len(piece) > _LINE:
            lines.append(line)
            line = "\t " + piece
        else:
            line += piece
    lines += [line, f"\tbh={body_hash};", "\tb="]
    return "\r\n".join(lines).encode("ascii")


_WIDTH: Final = re.compile(".{1,70}")


def _folded(text: str, used: int) -> str:
    """Base 64 in lines; white space in it means nothing (RFC 6376 3.5)."""
    first = text[: _LINE - used]
    return "\r\n\t ".join([first, *_WIDTH.findall(text[len(first) :])])
