"""Certificates and their keys: read from PEM, DER or PKCS#12 files, and made for development."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import idna
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

LARGEST_FILE = 1024 * 1024
"""Bytes; no chain is longer, and what is longer is some other file."""
RENEW_BEFORE = timedelta(days=30)
"""How long before its end a development certificate is made anew."""

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL
)
_KEY = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----.*?-----END (?:[A-Z]+ )?PRIVATE KEY-----", re.DOTALL
)
_PFX = re.compile(rb"\x30(?:\x80|[\x01-\x7f]|\x81.|\x82..|\x83...|\x84....)\x02\x01\x03", re.DOTALL)


class CertificateError(Exception):
    """A certificate or key cannot be used; the message names the file and what to do about it."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What is to be known about a certificate."""

    subject: str
    """As RFC 4514 writes names: ``CN=mail.example.com``."""
    issuer: str
    not_before: datetime
    """Aware, UTC; like ``not_after``."""
    not_after: datetime
    thumbprint: str
    """SHA-1 in upper-case hexadecimal, as .NET shows it."""
    dns_names: tuple[str, ...]
    """The DNS names it is made out to (subjectAltName)."""

    def expired(self, now: datetime | None = None) -> bool:
        """Whether it has expired at ``now`` (aware; default: this moment)."""
        return self.not_after < (now or datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class CertificateMaterial:
    """A certificate, what it is signed with, and its key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    """The issuers that came with it, each signing the one before."""
    key: PrivateKey = field(repr=False)

    @property
    def leaf(self) -> CertificateFacts:
        """The facts of the certificate itself."""
        return facts_of(self.certificate)

    @property
    def expired(self) -> bool:
        """Whether it has expired by now: it is loaded all the same, many a client takes it."""
        return self.leaf.expired()


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    """Gather the facts of ``certificate``."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = tuple(names.get_values_for_type(x509.DNSName))
    except (x509.ExtensionNotFound, ValueError):
        dns_names = ()
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        # names a certificate, as .NET does; nothing is trusted because of it
        thumbprint=certificate.fingerprint(SHA1()).hex().upper(),  # noqa: S303
        dns_names=dns_names,
    )


def load_certificate(
    path: Path, key_path: Path | None = None, password: str | None = None
) -> CertificateMaterial:
    """Read a certificate with its chain and key.

    The format is told by the content, not by the file's name: PEM (certificates in any order, the key in the
    same file or at ``key_path``), PKCS#12/PFX, or one DER certificate with its key at ``key_path``.
    ``password`` opens a PFX file or an encrypted key. Blocks while the files are read. An expired
    certificate is no error.

    Raises :class:`CertificateError` for a missing or unreadable file, another format, a wrong password, a
    missing key and a key of another certificate.
    """
    data = _read(path)
    secret = password.encode() if password else None
    found: Sequence[x509.Certificate]
    own_key: PrivateKey | None = None
    if b"-----BEGIN " in data:
        found = _pem_certificates(path, data)
        if key_path is None:
            own_key = _pem_key(path, data, secret)
    elif _PFX.match(data):
        found, own_key = _pkcs12(path, data, secret)
    else:
        found = [_der_certificate(path, data)]
    key = own_key if key_path is None else _key_file(key_path, secret)
    if key is None:
        raise CertificateError(
            f"{path} holds no private key: put it into the file, or name its own file in the key path"
        )
    public = _public(key.public_key())
    leaf = next((one for one in found if _public_of(one) == public), None)
    if leaf is None:
        raise CertificateError(
            f"The private key in {key_path or path} belongs to none of the certificates in {path}: "
            "take both from the same issue of the certificate"
        )
    return CertificateMaterial(leaf, tuple(_chain(leaf, found)), key)


def self_signed(hostnames: Sequence[str], days: int = 825) -> tuple[bytes, bytes]:
    """Make a certificate for ``hostnames`` (names or IP addresses, at least one) that signs itself; P-256.

    Returns certificate and unencrypted key, both PEM; valid for ``days`` from an hour ago.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostnames[0][:64])])
    start = datetime.now(UTC) - timedelta(hours=1)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hostnames]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(usage, True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .add_extension(identifier, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False)
        .sign(key, SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def development_certificate(folder: Path, hostnames: Sequence[str]) -> Path:
    """The path of ``certificate.pem`` in ``folder``: a self-signed certificate for ``hostnames`` and its key.

    It is made where it is missing, unusable, made out to other names or within 30 days of its end; readable
    by its owner only, and there whole or not at all. Blocks.

    Raises :class:`CertificateError` if it cannot be written.
    """
    path = folder / "certificate.pem"
    if not _still_good(path, hostnames):
        certificate, key = self_signed(hostnames)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _replace(path, certificate + key)
        except OSError as error:
            raise CertificateError(
                f"The development certificate {path} cannot be written: {error.strerror or error}"
            ) from None
    return path


def _still_good(path: Path, hostnames: Sequence[str]) -> bool:
    try:
        certificate = load_certificate(path).certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (CertificateError, x509.ExtensionNotFound, ValueError):
        return False
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return left > RENEW_BEFORE and set(map(_general_name, hostnames)) <= set(names)


def _replace(path: Path, content: bytes) -> None:
    """Write ``path`` so that a reader, or the next start after a crash, sees the old or the new content."""
    # mkstemp makes the file readable by its owner only
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host if host.isascii() else idna.encode(host, uts46=True).decode())


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise CertificateError(f"{path} does not exist") from None
    except OSError as error:
        raise CertificateError(
            f"{path} cannot be read: {error.strerror or error}; the host's user needs the right to read it"
        ) from None
    if len(data) > LARGEST_FILE:
        raise CertificateError(f"{path} is larger than 1 MiB, so it is no certificate or key")
    if not data.strip():
        raise CertificateError(f"{path} is empty")
    return data


def _pem_certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        found = [_whole(x509.load_pem_x509_certificate(block)) for block in _CERTIFICATE.findall(data)]
    except ValueError:
        raise CertificateError(f"{path} holds a damaged certificate (PEM)") from None
    if not found:
        raise CertificateError(f"{path} is PEM, but holds no certificate")
    return found


def _pem_key(path: Path, data: bytes, password: bytes | None) -> PrivateKey | None:
    """The first private key of a PEM file, ``None`` if there is none."""
    match = _KEY.search(data)
    return _key(path, match[0], password, pem=True) if match else None


def _key_file(path: Path, password: bytes | None) -> PrivateKey:
    data = _read(path)
    if b"-----BEGIN " not in data:
        return _key(path, data, password, pem=False)
    key = _pem_key(path, data, password)
    if key is None:
        raise CertificateError(f"{path} is PEM, but holds no private key")
    return key


def _key(path: Path, data: bytes, password: bytes | None, *, pem: bool) -> PrivateKey:
    load = load_pem_private_key if pem else load_der_private_key
    try:
        try:
            key = load(data, password)
        except TypeError:
            # "not encrypted", though a password is set, or the other way round
            if password is None:
                raise CertificateError(
                    f"The private key in {path} is encrypted: it needs a password"
                ) from None
            key = load(data, None)
    except UnsupportedAlgorithm:
        raise CertificateError(f"The private key in {path} is of a kind that is not supported") from None
    except ValueError:
        hint = (
            "the password is wrong, or the key is damaged" if password else "it is damaged or no private key"
        )
        raise CertificateError(f"The private key in {path} cannot be read: {hint}") from None
    return _suitable(path, key)


def _suitable(path: Path, key: object) -> PrivateKey:
    if not isinstance(key, PrivateKey):
        raise CertificateError(f"The private key in {path} is none for TLS: RSA, EC and Ed25519 are")
    return key


def _pkcs12(
    path: Path, data: bytes, password: bytes | None
) -> tuple[list[x509.Certificate], PrivateKey | None]:
    # "no password" is written in two ways, as none and as an empty one
    for secret in (password,) if password else (None, b""):
        try:
            content = pkcs12.load_pkcs12(data, secret)
            entries = [entry for entry in (content.cert, *content.additional_certs) if entry is not None]
            found = [_whole(entry.certificate) for entry in entries]
        except UnsupportedAlgorithm:
            raise CertificateError(f"{path} (PFX) is encrypted in a way that is not supported") from None
        except ValueError:
            continue
        if not found:
            raise CertificateError(f"{path} (PFX) holds no certificate")
        return found, None if content.key is None else _suitable(path, content.key)
    hint = (
        "the password is wrong, or the file is damaged" if password else "it needs a password, or is damaged"
    )
    raise CertificateError(f"{path} (PFX) cannot be opened: {hint}")


def _der_certificate(path: Path, data: bytes) -> x509.Certificate:
    try:
        return _whole(x509.load_der_x509_certificate(data))
    except ValueError:
        raise CertificateError(f"{path} is neither a PEM file nor a DER certificate nor a PFX file") from None


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """``certificate``, read to its end, which the library does when asked only; raises ``ValueError``."""
    facts_of(certificate)
    return certificate


def _public(key: object) -> bytes:
    """A public key in a form that can be compared; empty for kinds this library does not know."""
    try:
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]
    except (AttributeError, UnsupportedAlgorithm):
        return b""


def _public_of(certificate: x509.Certificate) -> bytes:
    try:
        return _public(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _chain(leaf: x509.Certificate, found: Sequence[x509.Certificate]) -> Iterator[x509.Certificate]:
    """The issuers of ``leaf`` among ``found``, each signing the one before (RFC 8446 4.4.2)."""
    current, rest = leaf, [one for one in found if one != leaf]
    while current.issuer != current.subject:
        issuer = next((one for one in rest if one.subject == current.issuer), None)
        if issuer is None:
            return
        yield issuer
        rest.remove(issuer)
        current = issuer
