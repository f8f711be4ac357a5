"""TLS of the listeners: versions and ciphers, and a certificate that is renewed while the host runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from relaymail.smtp.certificate import (
    CertificateError,
    CertificateFacts,
    CertificateMaterial,
    development_certificate,
    load_certificate,
    self_signed,
)
from relaymail.smtp.scram import TLS_EXPORTER, TLS_SERVER_END_POINT

__all__ = [
    "CertificateError",
    "CertificateFacts",
    "CertificateMaterial",
    "ServerTLS",
    "channel_binding",
    "describe_connection",
    "development_certificate",
    "load_certificate",
    "self_signed",
]

log = Logger()

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 4.2). TLS 1.3 has no others."""


class _Loaded(NamedTuple):
    """A certificate in use."""

    material: CertificateMaterial
    context: SSL.Context


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """The server's side of TLS, for ``transport.startTLS(…)`` and ``TLSMemoryBIOFactory(…, False, factory)``.

    TLS 1.2 and 1.3. When a file changes the certificate is loaded anew: handshakes from then on use it, while
    sessions in progress keep theirs. A new file that is no good changes nothing but :attr:`error`.
    """

    def __init__(self, path: Path, key_path: Path | None = None, password: str | None = None) -> None:
        """Load the certificate as :func:`load_certificate` does, which see for the errors raised. Blocks."""
        self._path = path
        self._key_path = key_path
        self._password = password
        self._seen = self._signature()
        self._loaded = self._load()
        self._watch: LoopingCall | None = None
        self.error: str | None = None
        """Why the files as they are now cannot be used; ``None`` while all is well."""
        if self.facts.expired():
            log.warn("The certificate {path} has expired on {end}", path=path, end=_day(self.facts))

    @property
    def facts(self) -> CertificateFacts:
        """The facts of the certificate that new handshakes use."""
        return self._loaded.material.leaf

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection with the certificate of this moment."""
        return SSL.Connection(self._loaded.context, None)

    def reload(self) -> bool:
        """Load the files now; whether there was another certificate in them. Blocks; raises nothing."""
        seen = self._signature()
        return self._take(seen, self._attempt())

    async def poll_once(self) -> bool:
        """Look after the files in a thread, and load them if they changed or the last try failed.

        Returns whether there was another certificate in them. Raises nothing that the files can cause.
        """
        found = await deferToThread(self._look)
        return found is not None and self._take(*found)

    def start(self, reactor: Any, interval: float = 2.0) -> None:
        """Look after the files every ``interval`` seconds of ``reactor`` (its clock), until :meth:`stop`."""
        if self._watch is not None:
            return
        self._watch = LoopingCall(self._poll)
        self._watch.clock = reactor
        self._watch.start(interval, now=False)

    def stop(self) -> None:
        """Look no more; what is loaded stays in use."""
        watch, self._watch = self._watch, None
        if watch is not None and watch.running:
            watch.stop()

    def _poll(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._poll_safely())

    async def _poll_safely(self) -> None:
        # a LoopingCall ends at the first exception, and the next renewal would be missed
        try:
            await self.poll_once()
        except Exception:
            log.failure("Looking after the certificate {path} failed", path=self._path)

    def _signature(self) -> tuple[object, ...]:
        """What tells one state of the files from another, symbolic links followed."""
        return tuple(_state(path) for path in (self._path, self._key_path) if path is not None)

    def _look(self) -> tuple[tuple[object, ...], _Loaded | CertificateError] | None:
        """In a thread: the files' new state and what is in them; ``None`` if there is nothing to do."""
        # the state is taken first: a change while the files are read is seen by the next look
        seen = self._signature()
        if seen == self._seen and self.error is None:
            return None
        return seen, self._attempt()

    def _attempt(self) -> _Loaded | CertificateError:
        try:
            return self._load()
        except CertificateError as error:
            return error

    def _load(self) -> _Loaded:
        material = load_certificate(self._path, self._key_path, self._password)
        try:
            return _Loaded(material, _context(material))
        except SSL.Error as error:
            reasons = (
                ", ".join(str(entry[-1]) for entry in (error.args[0] if error.args else ())) or "unknown"
            )
            raise CertificateError(f"OpenSSL refuses the certificate {self._path}: {reasons}") from None

    def _take(self, seen: tuple[object, ...], found: _Loaded | CertificateError) -> bool:
        """In the reactor: use what was found, or say once why not."""
        self._seen = seen
        if isinstance(found, CertificateError):
            if self.error != str(found):
                self.error = str(found)
                log.error(
                    "The new certificate cannot be used, the one until {end} stays: {problem}",
                    end=_day(self.facts),
                    problem=self.error,
                )
            return False
        self.error = None
        before = self._loaded.material
        if (found.material.certificate, found.material.chain) == (before.certificate, before.chain):
            return False
        self._loaded = found
        log.info(
            "Certificate {path} loaded anew: {subject}, valid until {end}, {thumbprint}",
            path=self._path,
            subject=self.facts.subject,
            end=_day(self.facts),
            thumbprint=self.facts.thumbprint,
        )
        return True


def describe_connection(transport: Any) -> tuple[str, str] | None:
    """TLS version and cipher of a connection, as in ``("TLSv1.3", "TLS_AES_256_GCM_SHA384")``.

    ``None`` where ``transport`` is not encrypted, or its handshake is still going on.
    """
    handle: Callable[[], object] | None = getattr(transport, "getHandle", None)
    connection = handle() if handle is not None else None
    if not isinstance(connection, SSL.Connection):
        return None
    cipher = connection.get_cipher_name()
    return None if cipher is None else (connection.get_protocol_version_name(), cipher)


def channel_binding(transport: Any, kind: str) -> bytes | None:
    """The data of a type of channel binding of a connection, for the server's side of SASL.

    ``None`` where ``transport`` is not encrypted, or has no binding of this ``kind``: ``tls-exporter``
    (RFC 9266) needs TLS 1.3, ``tls-server-end-point`` (RFC 5929 4.1) a certificate whose signature names a
    hash.
    """
    handle: Callable[[], object] | None = getattr(transport, "getHandle", None)
    connection = handle() if handle is not None else None
    if not isinstance(connection, SSL.Connection):
        return None
    if kind == TLS_EXPORTER and connection.get_protocol_version_name() == "TLSv1.3":
        return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
    if kind == TLS_SERVER_END_POINT:
        return _end_point(connection)
    return None


def _end_point(connection: SSL.Connection) -> bytes | None:
    certificate = connection.get_certificate(as_cryptography=True)
    algorithm = None if certificate is None else certificate.signature_hash_algorithm
    if certificate is None or algorithm is None:
        return None
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    return certificate.fingerprint(hashes.SHA256() if weak else algorithm)


def _day(facts: CertificateFacts) -> str:
    return facts.not_after.date().isoformat()


def _state(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def _context(material: CertificateMaterial) -> SSL.Context:
    """TLS 1.2 and newer by RFC 9325: no compression, no renegotiation, the server's order of ciphers."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    # buffers of idle connections are 34 KB each, thousands of them idle
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # tickets carry what a resumption needs; a cache would only grow beside them
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(material.certificate)
    for issuer in material.chain:
        context.add_extra_chain_cert(issuer)
    context.use_privatekey(material.key)
    context.check_privatekey()
    return context
