"""Whether the certificates a host presents are those its TLSA records name (RFC 6698, 7671, 7672)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

DANE_TA: Final = 2
DANE_EE: Final = 3
"""Certificate usages (RFC 7218 2.1). 0 and 1 are not for SMTP (RFC 7672 3.1.3)."""

CERTIFICATE: Final = 0
PUBLIC_KEY: Final = 1
"""Selectors."""

EXACT: Final = 0
SHA256: Final = 1
SHA512: Final = 2
"""Matching types."""

_DIGEST_OCTETS: Final = {SHA256: 32, SHA512: 64}
_LONGEST_CHAIN: Final = 20


class TLSARecord(NamedTuple):
    """A TLSA record (RFC 6698 2.1), from an answer that is authenticated."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def usable(self) -> bool:
        """Whether a client can do anything with it (RFC 7672 2.1.1)."""
        if self.usage not in (DANE_TA, DANE_EE) or self.selector not in (CERTIFICATE, PUBLIC_KEY):
            return False
        if self.matching == EXACT:
            return bool(self.data)
        return len(self.data) == _DIGEST_OCTETS.get(self.matching)

    def matches(self, certificate: x509.Certificate) -> bool:
        """Whether this is the record of ``certificate``."""
        octets = _selected(certificate, self.selector)
        if self.matching == EXACT:
            return self.data == octets
        digest = hashlib.sha256 if self.matching == SHA256 else hashlib.sha512
        return self.data == digest(octets).digest()


def _selected(certificate: x509.Certificate, selector: int) -> bytes:
    """What a selector selects; empty, which matches nothing, for a key of a kind that is not known."""
    if selector == CERTIFICATE:
        return certificate.public_bytes(Encoding.DER)
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (UnsupportedAlgorithm, ValueError):
        return b""


def matches_leaf(records: Iterable[TLSARecord], leaf: x509.Certificate) -> bool:
    """Whether a record of usage DANE-EE names the host's own certificate; names and dates do not matter
    (RFC 7672 3.1.1)."""
    return any(record.usage == DANE_EE and record.matches(leaf) for record in records)


def problem_of_chain(records: Iterable[TLSARecord], chain: Sequence[x509.Certificate]) -> str | None:
    """Why ``chain``, as presented, does not lead to a trust anchor that a record of usage DANE-TA names;
    ``None``: it does. Names are for the caller to check (RFC 7672 3.1.2)."""
    leaf, issuers = chain[0], list(chain[1:_LONGEST_CHAIN])
    problem = None
    for anchor in _anchors([record for record in records if record.usage == DANE_TA], issuers):
        problem = _problem_under(anchor, leaf, issuers)
        if problem is None:
            return None
    return problem or "no certificate is the one of a TLSA record"


def _anchors(
    records: Sequence[TLSARecord], issuers: Sequence[x509.Certificate]
) -> Iterator[x509.Certificate]:
    """Certificates that records name: presented ones, and such as stand in the record as a whole."""
    for issuer in issuers:
        if any(record.matches(issuer) for record in records):
            yield issuer
    for record in records:
        if (record.selector, record.matching) == (CERTIFICATE, EXACT):
            try:
                yield x509.load_der_x509_certificate(record.data)
            except ValueError:
                continue


def _problem_under(
    anchor: x509.Certificate, leaf: x509.Certificate, issuers: Iterable[x509.Certificate]
) -> str | None:
    store = crypto.X509Store()
    store.add_cert(crypto.X509.from_cryptography(anchor))
    # An anchor need not be a root
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context = crypto.X509StoreContext(
        store,
        crypto.X509.from_cryptography(leaf),
        [crypto.X509.from_cryptography(issuer) for issuer in issuers],
    )
    try:
        context.verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return None if _is_for_servers(leaf) else "the certificate is not one for servers"


def _is_for_servers(leaf: x509.Certificate) -> bool:
    """Whether its extended key usage, if it has one, allows for TLS servers (RFC 5280 4.2.1.12)."""
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    allowed = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    return any(usage in allowed for usage in usages)
