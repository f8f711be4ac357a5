"""Channel binding: what both ends of a TLS connection, and nobody between them, agree upon."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from relaymail.smtp.scram import TLS_EXPORTER, TLS_SERVER_END_POINT
from relaymail.smtp.tls import ServerTLS, channel_binding
from tests.smtp_tls.conftest import NAME, Issued

Write = Callable[..., Path]


class Transport:
    """Has the handle of a TLS connection."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def getHandle(self) -> SSL.Connection:
        return self._connection


def signed(algorithm: hashes.HashAlgorithm | None) -> Issued:
    """A certificate signed with this hash; ``None``: with Ed25519, which has none of its own."""
    key = (
        ed25519.Ed25519PrivateKey.generate() if algorithm is None else ec.generate_private_key(ec.SECP256R1())
    )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, algorithm)  # type: ignore[arg-type]
    )
    return Issued(certificate, key)


def shaken(tls: ServerTLS, version: int) -> tuple[Transport, SSL.Connection]:
    """The server's and the client's end of a connection, in memory, behind the handshake."""
    settings = SSL.Context(SSL.TLS_CLIENT_METHOD)
    settings.set_max_proto_version(version)
    client = SSL.Connection(settings, None)
    client.set_connect_state()
    protocol: Any = None
    server = tls.serverConnectionForTLS(protocol)
    server.set_accept_state()
    for _ in range(4):
        for near, far in ((client, server), (server, client)):
            try:
                near.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                far.bio_write(near.bio_read(65536))
            except SSL.WantReadError:
                pass
    return Transport(server), client


def test_the_exporter_gives_both_ends_the_same_and_each_connection_its_own(write: Write) -> None:
    issued = signed(hashes.SHA256())
    tls = ServerTLS(write("x", issued.pem, issued.key_pem()))
    seen = set()
    for _ in range(2):
        server, client = shaken(tls, SSL.TLS1_3_VERSION)
        data = channel_binding(server, TLS_EXPORTER)
        assert data == client.export_keying_material(b"EXPORTER-Channel-Binding", 32, None)
        seen.add(data)
    assert len(seen) == 2


def test_the_exporter_needs_tls_1_3(write: Write) -> None:
    issued = signed(hashes.SHA256())
    server, _ = shaken(ServerTLS(write("x", issued.pem, issued.key_pem())), SSL.TLS1_2_VERSION)
    assert channel_binding(server, TLS_EXPORTER) is None
    assert channel_binding(server, TLS_SERVER_END_POINT) is not None


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
def test_the_end_point_is_the_certificate_under_the_hash_of_its_signature(
    write: Write, algorithm: hashes.HashAlgorithm
) -> None:
    issued = signed(algorithm)
    server, _ = shaken(ServerTLS(write("x", issued.pem, issued.key_pem())), SSL.TLS1_3_VERSION)
    assert channel_binding(server, TLS_SERVER_END_POINT) == hashlib.new(algorithm.name, issued.der).digest()


def test_a_signature_without_a_hash_gives_no_end_point(write: Write) -> None:
    issued = signed(None)
    server, _ = shaken(ServerTLS(write("x", issued.pem, issued.key_pem())), SSL.TLS1_3_VERSION)
    assert channel_binding(server, TLS_SERVER_END_POINT) is None
    assert channel_binding(server, TLS_EXPORTER) is not None


def test_there_is_nothing_to_bind_without_tls_or_of_another_kind(write: Write) -> None:
    issued = signed(hashes.SHA256())
    server, _ = shaken(ServerTLS(write("x", issued.pem, issued.key_pem())), SSL.TLS1_3_VERSION)
    assert channel_binding(server, "tls-unique") is None
    assert channel_binding(object(), TLS_EXPORTER) is None
