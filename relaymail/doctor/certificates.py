"""The host's certificate, loaded as the host loads it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from OpenSSL import crypto

from relaymail.doctor.check import Skipped
from relaymail.doctor.context import Context
from relaymail.smtp.certificate import CertificateError, CertificateMaterial, load_certificate

DEVELOPMENT = "certificate.pem"
"""Name of the self-signed certificate in the data folder."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The certificate, or why it cannot be loaded."""

    path: Path
    development: bool
    material: CertificateMaterial | None
    problem: str = ""


async def certificate(context: Context) -> Loaded:
    """The certificate of the settings, or the host's own one for development; loaded once.

    :raises Skipped: there is none.
    """
    return await context.once("certificate", lambda: _load(context))


async def usable(context: Context) -> CertificateMaterial:
    """The same, for who needs one that can be loaded. Raises :exc:`Skipped`."""
    loaded = await certificate(context)
    if loaded.material is None:
        raise Skipped("the certificate cannot be loaded, see check.tls.certificate")
    return loaded.material


async def _load(context: Context) -> Loaded:
    smtp = context.settings.smtp
    path, development = smtp.certificate_path, False
    if path is None:
        if not context.development:
            raise Skipped("there is no certificate, see check.tls.certificate")
        path, development = context.settings.data.directory / DEVELOPMENT, True
        if not path.exists():
            raise Skipped("the development certificate does not exist yet: the host's first start makes it")
    password = smtp.certificate_password.reveal() if smtp.certificate_password else None
    key_path = None if development else smtp.certificate_key_path
    try:
        material = await context.aside(load_certificate, path, key_path, password)
    except CertificateError as error:
        return Loaded(path, development, None, str(error))
    return Loaded(path, development, material)


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether ``certificate`` is made out to ``name``, a host name or an IP address (RFC 9525 6)."""
    names = _alternative_names(certificate)
    if names is None:
        return False
    try:
        address = ip_address(name)
    except ValueError:
        return any(
            _matches(pattern.lower(), name.lower()) for pattern in names.get_values_for_type(x509.DNSName)
        )
    return address in names.get_values_for_type(x509.IPAddress)


def made_out_to(certificate: x509.Certificate) -> list[str]:
    """The names and addresses in a certificate."""
    names = _alternative_names(certificate)
    return [] if names is None else [str(name.value) for name in names]


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:]
    return pattern == name


def verify(material: CertificateMaterial) -> str:
    """Why clients would not trust the certificate, by this machine's authorities; empty if they would.

    Reads the authorities' files. Names and dates are not looked at.
    """
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:
        return "no authorities are installed on this machine (the package ca-certificates)"
    store = crypto.X509Store()
    store.load_locations(paths.cafile, paths.capath)
    # An expired certificate is told of elsewhere, and must not hide what is wrong with its chain
    facts, now = material.leaf, datetime.now(UTC)
    second = timedelta(seconds=1)
    store.set_time(min(max(now, facts.not_before + second), facts.not_after - second))
    leaf = crypto.X509.from_cryptography(material.certificate)
    chain = [crypto.X509.from_cryptography(one) for one in material.chain]
    try:
        crypto.X509StoreContext(store, leaf, chain).verify_certificate()
    except crypto.X509StoreContextError as error:
        return str(error)
    return ""
