"""A small certification authority, and TLS servers and clients on loopback."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory

from relaymail.smtp.tls import ServerTLS, describe_connection

NAME = "mail.example.test"


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.DER)

    def key_pem(self, password: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        """The key, encrypted if there is a password."""
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return bytes(self.key.private_bytes(Encoding.PEM, form, encryption))


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def issue(
    name: str,
    issuer: Issued | None = None,
    *,
    authority: bool = False,
    key: Any = None,
    ends: timedelta = timedelta(days=90),
) -> Issued:
    """Sign a certificate for ``name``, with itself if there is no issuer."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.now(UTC) + ends
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=100))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        # Python 3.13 verifies as RFC 5280 wants it, and misses these
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer.key if issuer else key).public_key()),
            False,
        )
        .add_extension(_usage(authority), True)
        .sign(issuer.key if issuer else key, SHA256())
    )
    return Issued(certificate, key)


@dataclass(frozen=True)
class Authority:
    """Root and intermediate."""

    root: Issued
    intermediate: Issued

    def issue(self, name: str = NAME, **options: Any) -> Issued:
        """A certificate for a server."""
        return issue(name, self.intermediate, **options)


@pytest.fixture(scope="session")
def authority() -> Authority:
    root = issue("Root", authority=True)
    return Authority(root, issue("Intermediate", root, authority=True))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def writer(name: str, *parts: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(parts))
        return path

    return writer


@pytest.fixture
def errors() -> Iterator[list[LogEvent]]:
    """The warnings and errors that are logged."""
    found: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"].name in ("warn", "error", "critical"):
            found.append(event)

    publisher: Any = globalLogPublisher
    publisher.addObserver(observe)
    yield found
    publisher.removeObserver(observe)


class Echo(Protocol):
    """Sends back what it gets, and the facts of its connection for ``?``; ``STARTTLS`` turns TLS on."""

    tls: ServerTLS
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        if data == b"STARTTLS":
            self.transport.write(b"go")
            self.transport.startTLS(self.tls)
        elif data == b"?":
            self.transport.write(repr(describe_connection(self.transport)).encode())
        else:
            self.transport.write(data)


@asynccontextmanager
async def serving(tls: ServerTLS, *, implicit: bool = True) -> AsyncIterator[int]:
    """Listen on loopback; gives the port."""
    from twisted.internet import reactor

    factory: Any = Factory.forProtocol(type("Bound", (Echo,), {"tls": tls}))
    creator: Any = tls
    wrapped = TLSMemoryBIOFactory(creator, False, factory) if implicit else factory
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(wrapped)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()


def context(*roots: Issued) -> ssl.SSLContext:
    """A client that trusts ``roots``; without any it trusts everyone."""
    found = ssl.create_default_context(cadata="".join(root.pem.decode() for root in roots) or None)
    if not roots:
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    return found


class Client:
    """A blocking TLS client, each step in a thread."""

    def __init__(self, port: int, settings: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._port = port
        self._settings = settings
        self._session = session
        self.socket: ssl.SSLSocket

    async def connect(self, starttls: bool = False) -> Client:
        """Connect and shake hands; raises what the ``ssl`` module raises."""
        await deferToThread(self._connect, starttls)
        return self

    def _connect(self, starttls: bool) -> None:
        plain = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        if starttls:
            plain.sendall(b"STARTTLS")
            assert plain.recv(100) == b"go"
        self.socket = self._settings.wrap_socket(plain, server_hostname=NAME, session=self._session)

    async def ask(self, data: bytes) -> bytes:
        """Send ``data`` and wait for an answer."""
        await deferToThread(self.socket.sendall, data)
        return bytes(await deferToThread(self.socket.recv, 1000))

    @property
    def certificate(self) -> bytes | None:
        """The server's certificate, DER."""
        return self.socket.getpeercert(binary_form=True)

    async def close(self) -> None:
        """Hang up."""
        await deferToThread(self.socket.close)


@asynccontextmanager
async def connected(port: int, settings: ssl.SSLContext, **options: Any) -> AsyncIterator[Client]:
    """A client that is hung up at the end."""
    client = await Client(port, settings, options.pop("session", None)).connect(**options)
    try:
        yield client
    finally:
        await client.close()


trusting_all = partial(context)
