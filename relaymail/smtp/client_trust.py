"""What TLS of the client is made with: versions, ciphers, and the authorities that are trusted."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable
from functools import cache
from typing import Final
from weakref import WeakKeyDictionary

from cryptography import x509
from OpenSSL import SSL, crypto

_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the certificates of authorities."""


class TrustRoots:
    """Certificates of authorities. Make one and keep it: that takes tens of milliseconds."""

    def __init__(self, certificates: Iterable[x509.Certificate] = ()) -> None:
        self.context = _context(b"DEFAULT")
        self.context.set_verify(SSL.VERIFY_PEER, self._note_problem)
        self._problems: WeakKeyDictionary[SSL.Connection, str] = WeakKeyDictionary()
        """What is wrong with the chain of each connection, ``""`` if nothing is."""
        store = self.context.get_cert_store()
        assert store is not None
        for certificate in certificates:
            store.add_cert(crypto.X509.from_cryptography(certificate))

    @classmethod
    def system(cls) -> TrustRoots:
        """Those of the operating system. Blocks.

        :raises OSError: there are none, or they cannot be read.
        """
        configured = ssl.get_default_verify_paths().cafile
        for path in filter(None, (configured, *_BUNDLES)):
            if os.path.isfile(path):
                roots = cls()
                try:
                    roots.context.load_verify_locations(path)
                except SSL.Error as error:
                    raise OSError(f"{path} cannot be read: {error}") from None
                return roots
        raise FileNotFoundError(
            f"the system has no certificates of authorities: none of {', '.join(_BUNDLES)}"
        )

    @classmethod
    def from_pem(cls, data: bytes) -> TrustRoots:
        """Those in a PEM file's content. Takes as long as there are many.

        :raises ValueError: there are none in it, or one is damaged.
        """
        return cls(x509.load_pem_x509_certificates(data))

    def problem(self, connection: SSL.Connection) -> str | None:
        """What is wrong with the chain that the host presented on a connection of this :attr:`context`;
        ``None``: it leads to a root."""
        return self._problems.get(connection, "it was not looked at") or None

    def _note_problem(
        self, connection: SSL.Connection, certificate: object, error: int, depth: int, good: int
    ) -> bool:
        """Remember what is wrong with a chain, and go on with the handshake all the same."""
        if good:
            if depth == 0:
                self._problems.setdefault(connection, "")
        elif not self._problems.get(connection):
            self._problems[connection] = _WORDS.get(error, f"error {error}")
        return True


_WORDS: Final = {
    code: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, code in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}


def _context(ciphers: bytes, options: int = 0) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(ciphers)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | options)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # A session that is resumed shows no certificate
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


@cache
def any_context() -> SSL.Context:
    """For hosts that need not prove anything: short keys and old signatures are better than clear text."""
    return _context(b"DEFAULT:@SECLEVEL=0", SSL.OP_LEGACY_SERVER_CONNECT)


@cache
def pinned_context() -> SSL.Context:
    """For hosts whose certificate the DNS vouches for."""
    return _context(b"DEFAULT:@SECLEVEL=1")
