"""Keys of DKIM signatures: made, read, and published in the DNS (RFC 6376 3.6.1, RFC 8463)."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa, utils

Algorithm = Literal["rsa", "ed25519"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("rsa", "ed25519")

RSA_BITS: Final = 2048
"""What a new key has: RFC 8301 3.2 asks for no less, and every verifier takes it."""
SMALLEST_RSA: Final = 1024
LARGEST_RSA: Final = 4096
"""What RFC 8301 3.2 allows, and more than that takes too long to sign with."""
STRING_OCTETS: Final = 255
"""Octets of a character-string of a TXT record (RFC 1035 3.3)."""

_SELECTOR: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)


class KeyProblem(ValueError):
    """Not a key that can sign; the text is a sentence that holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, and the names under which its public half is published."""

    domain: str
    """Lower-case A-labels: ``d=``."""
    selector: str
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

    def __repr__(self) -> str:
        """Names it, and nothing else."""
        return f"<{self.algorithm} key {self.selector} of {self.domain}>"

    def works(self) -> bool:
        """Whether what it signs can be verified. A key's first signature takes longer than the others."""
        digest = hashlib.sha256().digest()
        public = self.private.public_key()
        try:
            if isinstance(public, rsa.RSAPublicKey):
                prehashed = utils.Prehashed(hashes.SHA256())
                public.verify(self.sign(digest), digest, padding.PKCS1v15(), prehashed)
            else:
                public.verify(self.sign(digest), digest)
        except (InvalidSignature, ValueError):
            return False
        return True

    @property
    def algorithm(self) -> Algorithm:
        """The first half of ``a=``."""
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest (RFC 6376 3.3.1); Ed25519 takes it for a text (RFC 8463 3)."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
        return self.private.sign(digest)


def new_key(algorithm: Algorithm) -> bytes:
    """A new private key, as PEM (PKCS #8, not encrypted). RSA takes some 100 ms."""
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "rsa":
        private = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    else:
        private = ed25519.Ed25519PrivateKey.generate()
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(pem: bytes, domain: str, selector: str, *, prove: bool = True) -> SigningKey:
    """The key in ``pem`` (PKCS #8 or PKCS #1).

    :param prove: look whether the numbers of an RSA key are what they should be: 60 ms and more, in which the
        whole process stands still. Without it, see :meth:`SigningKey.works`.
    :raises KeyProblem: it holds no usable private key.
    """
    try:
        private = serialization.load_pem_private_key(
            pem, password=None, unsafe_skip_rsa_key_validation=not prove
        )
    except TypeError:
        raise KeyProblem("the key is encrypted; DKIM keys are kept without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyProblem("it holds no private key in PEM form") from None
    if isinstance(private, rsa.RSAPrivateKey):
        if not SMALLEST_RSA <= private.key_size <= LARGEST_RSA:
            raise KeyProblem(f"it is an RSA key of {private.key_size} bits; verifiers want {RSA_BITS}")
    elif not isinstance(private, ed25519.Ed25519PrivateKey):
        raise KeyProblem("it is neither an RSA nor an Ed25519 key")
    return SigningKey(domain, selector, private)


def public_text(key: SigningKey) -> str:
    """The public key as ``p=`` has it, in base 64: RSA's SubjectPublicKeyInfo, the 32 octets of Ed25519."""
    public = key.private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        octets = public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    else:
        octets = public.public_bytes_raw()
    return b64encode(octets).decode()


def record_name(domain: str, selector: str) -> str:
    """Where the record is published, without the dot at the end."""
    return f"{selector}._domainkey.{domain}"


def record_text(algorithm: str, public: str) -> str:
    """What the record says (RFC 6376 3.6.1, RFC 8301 3.1: SHA-256 only)."""
    return f"v=DKIM1; h=sha256; k={algorithm}; p={public}"


def zone_line(domain: str, selector: str, text: str) -> str:
    """The record as a line of a zone file, cut into strings of at most 255 octets (RFC 1035 5.1)."""
    strings = [text[start : start + STRING_OCTETS] for start in range(0, len(text), STRING_OCTETS)]
    quoted = " ".join(f'"{string}"' for string in strings)
    return f"{record_name(domain, selector)}. 3600 IN TXT ( {quoted} )"


def check_selector(selector: str) -> str:
    """The selector in lower case (RFC 6376 3.1: labels of a domain name). Raises :exc:`KeyProblem`."""
    lower = selector.lower()
    if len(lower) > 100 or _SELECTOR.fullmatch(lower) is None:
        raise KeyProblem(f"{selector[:100]!r} is no selector: letters, digits and hyphens, like a host name")
    return lower
