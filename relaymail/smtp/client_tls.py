"""TLS of the client: what is asked of a host, and whether its certificate stands up to it.

- *Opportunistic* (RFC 7435): any certificate. TLS 1.2 and newer, because TLS 1.0 and 1.1 are gone from the
  libraries (RFC 8996); whoever only knows those fails the handshake and may be tried in clear.
- *Encrypted*: the same, but never in clear.
- *Verified*: a chain to a trusted root, and one of the names (MTA-STS, a smarthost).
- *DANE* (RFC 7672): the TLSA records decide. DANE-EE(3) ignores names and dates, DANE-TA(2) checks both.
  Records of usage 0 and 1 are unusable; if no record is usable this is *encrypted* (RFC 7672 2.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Literal, NamedTuple


class TLSMode(Enum):
    """How much is asked for."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    ENCRYPTED = "encrypted"
    VERIFIED = "verified"
    DANE = "dane"


class TLSARecord(NamedTuple):
    """A TLSA record (RFC 6698 2.1), from an answer that is authenticated."""

    usage: int
    selector: int
    matching: int
    data: bytes


class TrustRoots:
    """Certificates of authorities. Make one and keep it: reading them takes tens of milliseconds."""

    def __init__(self, certificates: Iterable[Any]) -> None:
        """:param certificates: ``cryptography.x509.Certificate`` each."""
        self._certificates = tuple(certificates)

    @classmethod
    def system(cls) -> TrustRoots:
        """Those of the operating system. Blocks.

        :raises OSError: there are none.
        """
        raise NotImplementedError

    @classmethod
    def from_pem(cls, data: bytes) -> TrustRoots:
        """Those in a PEM file's content.

        :raises ValueError: there are none in it, or one is damaged.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class TLSRequirement:
    """What is asked of one host."""

    mode: TLSMode
    names: tuple[str, ...] = ()
    """Names of which the certificate must have one (A-labels; an IP address is one too); for VERIFIED and
    DANE-TA. A name that begins with a dot, ``.example.com``, is matched by any one-label subdomain's as well
    (a pattern of MTA-STS)."""
    roots: TrustRoots | None = None
    records: tuple[TLSARecord, ...] = ()
    implicit: bool = False
    """TLS from the first octet on (RFC 8314 3.3), not with STARTTLS."""

    @classmethod
    def none(cls) -> TLSRequirement:
        """In clear, even where STARTTLS is offered."""
        return cls(TLSMode.NONE)

    @classmethod
    def opportunistic(cls) -> TLSRequirement:
        """TLS where it is offered, with any certificate."""
        return cls(TLSMode.OPPORTUNISTIC)

    @classmethod
    def encrypted(cls) -> TLSRequirement:
        """TLS with any certificate, never in clear."""
        return cls(TLSMode.ENCRYPTED)

    @classmethod
    def verified(cls, names: Iterable[str], roots: TrustRoots) -> TLSRequirement:
        """TLS with a certificate of ``roots`` for one of ``names``."""
        return cls(TLSMode.VERIFIED, tuple(names), roots)

    @classmethod
    def dane(cls, records: Iterable[TLSARecord], names: Iterable[str]) -> TLSRequirement:
        """TLS as ``records`` say. ``names`` for DANE-TA: the TLSA base domain first, then the domain of the
        recipient and what it expands to (RFC 7672 3.2.3)."""
        return cls(TLSMode.DANE, tuple(names), None, tuple(records))

    def implicitly(self) -> TLSRequirement:
        """The same from the first octet on."""
        return replace(self, implicit=True)

    @property
    def forbids_clear(self) -> bool:
        """Whether nothing may be sent in clear, so that a TLS failure must not be tried again in clear."""
        return self.implicit or self.mode not in (TLSMode.NONE, TLSMode.OPPORTUNISTIC)


VerifiedBy = Literal["nothing", "roots", "dane-ee", "dane-ta"]


@dataclass(frozen=True, slots=True)
class ClientTLSFacts:
    """What came of it."""

    version: str
    """As in ``TLSv1.3``."""
    cipher: str
    verified_by: VerifiedBy
    """``nothing`` under opportunistic, encrypted, and DANE without a usable record."""


TLSProblem = Literal["not-offered", "refused", "handshake", "certificate"]
"""Why there is no TLS: the host does not offer STARTTLS; answered it with an error, or with more than its
reply; the handshake failed; its certificate is not what was asked for."""
