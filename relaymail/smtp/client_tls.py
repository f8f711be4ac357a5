"""TLS of the client: what is asked of a host, and whether its certificate stands up to it.

- *Opportunistic* (RFC 7435): any certificate, and ciphers weaker than one would choose, for what comes
  instead is clear text. But TLS 1.2 at least (RFC 8996): who knows only older ones fails the handshake.
- *Encrypted*: the same, but never in clear.
- *Verified*: a chain to a trusted root, and one of the names (MTA-STS, a smarthost).
- *DANE* (RFC 7672): the TLSA records decide. DANE-EE(3) ignores names and dates, DANE-TA(2) checks both.
  Records of usage 0 and 1 are unusable; if no record is usable this is *encrypted* (RFC 7672 2.2).

No handshake fails because of a certificate: it is completed, then the certificate is looked at before
anything is said, so that one kind of failure can be told from the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from OpenSSL import SSL
from service_identity import CertificateError as UnreadableNames
from service_identity import VerificationError
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from relaymail.smtp import client_dane
from relaymail.smtp.client_dane import TLSARecord
from relaymail.smtp.client_trust import TrustRoots, any_context, pinned_context

__all__ = [
    "BadCertificate",
    "ClientTLS",
    "ClientTLSFacts",
    "TLSARecord",
    "TLSMode",
    "TLSProblem",
    "TLSRequirement",
    "TrustRoots",
    "VerifiedBy",
]


class TLSMode(Enum):
    """How much is asked for."""

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    ENCRYPTED = "encrypted"
    VERIFIED = "verified"
    DANE = "dane"


VerifiedBy = Literal["nothing", "roots", "dane-ee", "dane-ta"]

TLSProblem = Literal["not-offered", "refused", "handshake", "certificate"]
"""Why there is no TLS: the host does not offer STARTTLS; answered it with an error, or with more than its
reply; the handshake failed; its certificate is not what was asked for."""


@dataclass(frozen=True, slots=True)
class ClientTLSFacts:
    """What came of it."""

    version: str
    """As in ``TLSv1.3``."""
    cipher: str
    verified_by: VerifiedBy
    """``nothing`` under opportunistic, encrypted, and DANE without a usable record."""


class BadCertificate(Exception):
    """The host's certificate is not what was asked for; the text says why."""


@dataclass(frozen=True, slots=True)
class TLSRequirement:
    """What is asked of one host."""

    mode: TLSMode
    names: tuple[str, ...] = ()
    """Of these the certificate must have one (A-labels, or IP addresses); for VERIFIED and DANE-TA."""
    roots: TrustRoots | None = field(default=None, repr=False)
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


@implementer(IOpenSSLClientConnectionCreator)
class ClientTLS:
    """The client's side of TLS with one host, for ``transport.startTLS(…)``.

    :param host: its name, for SNI where DANE does not say otherwise.
    """

    def __init__(self, requirement: TLSRequirement, host: str) -> None:
        self._requirement = requirement
        self._records = [record for record in requirement.records if record.usable]
        # RFC 7672 8.1: the TLSA base domain
        dane = requirement.mode is TLSMode.DANE and requirement.names
        self._server_name = requirement.names[0] if dane else host

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        """A connection that has not begun its handshake."""
        connection = SSL.Connection(self._context(), None)
        name = self._server_name.rstrip(".")
        if _ip_address(name) is None and name.isascii():
            connection.set_tlsext_host_name(name.encode())
        return connection

    def check(self, connection: SSL.Connection) -> ClientTLSFacts:
        """Look at the certificate behind the handshake.

        :raises BadCertificate: it is not what was asked for.
        """
        verified_by = self._verify(connection)
        cipher = connection.get_cipher_name() or ""
        return ClientTLSFacts(connection.get_protocol_version_name(), cipher, verified_by)

    def _context(self) -> SSL.Context:
        if self._requirement.mode is TLSMode.VERIFIED:
            assert self._requirement.roots is not None
            return self._requirement.roots.context
        return pinned_context() if self._records else any_context()

    def _verify(self, connection: SSL.Connection) -> VerifiedBy:
        requirement = self._requirement
        if requirement.mode is TLSMode.VERIFIED:
            assert requirement.roots is not None
            problem = requirement.roots.problem(connection)
            if problem is not None:
                raise BadCertificate(f"the host's certificate is not trusted: {problem}")
            _check_names(_chain(connection)[0], requirement.names)
            return "roots"
        if not self._records:
            return "nothing"
        chain = _chain(connection)
        if client_dane.matches_leaf(self._records, chain[0]):
            return "dane-ee"
        problem = client_dane.problem_of_chain(self._records, chain)
        if problem is not None:
            raise BadCertificate(f"the host's certificate is not what its TLSA records say: {problem}")
        _check_names(chain[0], requirement.names)
        return "dane-ta"


def _chain(connection: SSL.Connection) -> Sequence[x509.Certificate]:
    """What the host presented, its own certificate first."""
    try:
        chain = connection.get_peer_cert_chain(as_cryptography=True)
    except ValueError:
        raise BadCertificate("the host's certificate cannot be read") from None
    if not chain:
        raise BadCertificate("the host has no certificate")
    return chain


def _check_names(certificate: x509.Certificate, names: Iterable[str]) -> None:
    """:raises BadCertificate: the certificate has none of ``names``."""
    unreadable = None
    for name in names:
        try:
            if _ip_address(name) is None:
                verify_certificate_hostname(certificate, name.rstrip("."))
            else:
                verify_certificate_ip_address(certificate, name)
        except VerificationError:
            continue
        except (UnreadableNames, ValueError) as error:
            unreadable = str(error)
        else:
            return
    raise BadCertificate(f"the host's certificate is not for {' or '.join(names)}" + _because(unreadable))


def _because(why: str | None) -> str:
    return f": {why}" if why else ""


def _ip_address(name: str) -> object | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
