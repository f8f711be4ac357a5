"""Addresses of the envelope: the paths of MAIL and RCPT (RFC 5321 4.1.2, RFC 6531 3.3). Pure; open to every
room."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import idna

LOCAL_PART_OCTETS: Final = 64
DOMAIN_OCTETS: Final = 255
PATH_OCTETS: Final = 256
"""Limits of RFC 5321 4.5.3.1.1 to 4.5.3.1.3; a path is counted with its angle brackets."""
ADDRESSES_KEPT: Final = 4096
"""Addresses that are remembered: at most some 4 MB."""

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
# RFC 6531 has the C1 controls and Unicode's line ends as well: nobody's name, but some program's newline
_BEYOND_ASCII = r"\u00a0-\u2027\u202a-\U0010ffff"
_ATOM: Final = re.compile(rf"[{_BEYOND_ASCII}{_ATEXT}]+")
_QUOTED: Final = re.compile(rf"[ -~{_BEYOND_ASCII}]")
_PLAIN_PATH: Final = re.compile(rf"<([.{_ATEXT}]+)@([A-Za-z0-9.-]+)>")
# An underscore is no LDH, but hosts with one send mail
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?")


class AddressError(ValueError):
    """Not an address; the text says what is wrong with it."""


class NonASCIIAddress(AddressError):
    """An internationalized address where SMTPUTF8 was not given (RFC 6531 3.4)."""


@dataclass(frozen=True)
class Address:
    """A mailbox. ``local`` is unquoted; ``domain`` as given, ``''`` for a bare ``postmaster``, ``[…]`` for a
    literal."""

    local: str
    domain: str

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        local = self.local
        if not local or local[0] == "." or local[-1] == "." or ".." in local or not _is_atoms(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local

    @cached_property
    def host(self) -> str:
        """The domain for comparison: lower-case A-labels (RFC 5890), so that one domain has one spelling."""
        return ascii_domain(self.domain)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The spellings under which the address may be on record, lower case: A-labels first, then as
        given."""
        local = unicodedata.normalize("NFC", self.local).lower()
        plain = f"{local}@{self.host}"
        if self.domain.isascii() and "xn--" not in self.host:
            return (plain,)
        try:
            decoded = idna.decode(self.host)
        except idna.IDNAError:
            return (plain,)
        return (plain, f"{local}@{decoded}")


def ascii_domain(domain: str) -> str:
    """``domain`` in lower-case A-labels; one that IDNA does not know is only lower-cased."""
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode().lower()
    except idna.IDNAError:
        return unicodedata.normalize("NFC", domain).lower()


def parse_path(text: str, *, utf8: bool = False) -> tuple[Address | None, str]:
    """Read the path that ``text`` begins with and return it with the rest of the line (the parameters).

    ``<>`` is ``None``. A source route is accepted and dropped (RFC 5321 appendix C). ``utf8`` tells whether
    the address may be internationalized. Raises :exc:`AddressError`, :exc:`NonASCIIAddress`.
    """
    match = _PLAIN_PATH.match(text)
    if match is not None and len(match[0]) <= PATH_OCTETS:
        address = _plain(match[1], match[2])
        if address is not None:
            return address, text[match.end() :]
    return _PathReader(text, utf8).path()


@lru_cache(maxsize=ADDRESSES_KEPT)
def _plain(local: str, domain: str) -> Address | None:
    """An address without anything odd; ``None``: it has to be looked at more closely.

    Senders and recipients come again and again, and so does what is worked out of them.
    """
    if local[0] == "." or local[-1] == "." or ".." in local or ".." in domain:
        return None
    _check_lengths(local, domain)
    _check_domain(domain)
    return Address(local, domain)


def parse_mailbox(text: str, *, utf8: bool = True) -> Address:
    """Read ``local@domain`` and nothing else. Raises :exc:`AddressError`."""
    address, rest = _PathReader(f"<{text}>", utf8).path()
    if address is None or rest or not address.domain:
        raise AddressError("not of the form local@domain")
    return address


class _PathReader:
    """Reads one path from left to right."""

    def __init__(self, text: str, utf8: bool) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise AddressError("half a character is in it (a lone surrogate)") from None
        self.text = text
        self.at = 0
        self.utf8 = utf8

    def path(self) -> tuple[Address | None, str]:
        if not self._take("<"):
            raise AddressError("an address must be in angle brackets")
        if self._take(">"):
            return None, self.text[self.at :]
        if self._peek() == "@":
            self._source_route()
        local = self._quoted_string() if self._peek() == '"' else self._dot_string()
        domain = ""
        if self._take("@"):
            domain = self._literal() if self._peek() == "[" else self._domain()
        if not self._take(">"):
            raise AddressError(f"unexpected {self._here()} behind the address")
        if not domain and local.lower() != "postmaster":
            raise AddressError("the domain is missing")
        path = self.text[: self.at]
        if len(path.encode()) > PATH_OCTETS:
            raise AddressError(f"longer than {PATH_OCTETS} octets")
        if not path.isascii() and not self.utf8:
            raise NonASCIIAddress("SMTPUTF8 required")
        _check_lengths(local, domain)
        return Address(local, domain), self.text[self.at :]

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _here(self) -> str:
        return repr(self._peek()) if self._peek() else "end of line"

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self.at += 1
        return True

    def _source_route(self) -> None:
        more = True
        while more and self._take("@"):
            if self.at > PATH_OCTETS:
                raise AddressError(f"longer than {PATH_OCTETS} octets")
            if self._peek() == "[":
                self._literal()
            else:
                self._domain()
            more = self._take(",")
        if more or not self._take(":"):
            raise AddressError("a source route must end with ':'")

    def _dot_string(self) -> str:
        start = self.at
        while True:
            match = _ATOM.match(self.text, self.at)
            if match is None:
                raise AddressError(f"unexpected {self._here()} in the local part")
            self.at = match.end()
            if not self._take("."):
                return self.text[start : self.at]

    def _quoted_string(self) -> str:
        self._take('"')
        content: list[str] = []
        while not self._take('"'):
            self._take("\\")
            character = self._peek()
            if _QUOTED.match(character) is None:
                raise AddressError(f"unexpected {self._here()} in the quoted local part")
            content.append(character)
            self.at += 1
        return "".join(content)

    def _domain(self) -> str:
        end = self.at
        while end < len(self.text) and self.text[end] not in ">:, ":
            end += 1
        domain = self.text[self.at : end]
        # First of all: IDNA takes its time
        _check_lengths("", domain)
        _check_domain(domain)
        self.at = end
        return domain

    def _literal(self) -> str:
        end = self.text.find("]", self.at)
        literal = self.text[self.at : end + 1]
        inner = literal[1:-1]
        try:
            if "%" in inner:
                # Python would take a zone, which may be any text
                raise ValueError
            if inner[:5].lower() == "ipv6:":
                ipaddress.IPv6Address(inner[5:])
            else:
                ipaddress.IPv4Address(inner)
        except ValueError:
            raise AddressError("not an address literal") from None
        self.at = end + 1
        return literal


def _is_atoms(local: str) -> bool:
    return all(_ATOM.fullmatch(atom) for atom in local.split(".") if atom)


def _check_lengths(local: str, domain: str) -> None:
    if len(local.encode()) > LOCAL_PART_OCTETS:
        raise AddressError(f"the local part is longer than {LOCAL_PART_OCTETS} octets")
    if len(domain.encode()) > DOMAIN_OCTETS:
        raise AddressError(f"the domain is longer than {DOMAIN_OCTETS} octets")


def _check_domain(domain: str) -> None:
    if not domain:
        raise AddressError("the domain is missing")
    if not domain.isascii():
        try:
            idna.encode(domain, uts46=True)
        except idna.IDNAError:
            raise AddressError("not an internationalized domain name") from None
        return
    for label in domain.split("."):
        if len(label) > 63 or _LABEL.fullmatch(label) is None:
            raise AddressError(
                f"{label[:63]!r} is no label of a domain name" if label else "the domain has an empty label"
            )
