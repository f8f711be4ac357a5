"""The client's side of SCRAM-SHA-256 (RFC 5802), written from the RFC and not from the server's side."""

from __future__ import annotations

import base64
import hashlib
import hmac


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()


class ScramClient:
    """One exchange.

    :param flag: what the client says of channel binding: ``n``, ``y`` or ``p=type``.
    :param binding: the data of that type.
    """

    def __init__(
        self,
        login: str,
        password: str,
        *,
        flag: str = "n",
        binding: bytes = b"",
        authorization: str = "",
        nonce: str = "rOprNGfwEbeRWgbNEkqO",
    ) -> None:
        self._password = password
        self._binding = binding
        self._header = f"{flag},{authorization and 'a=' + authorization},"
        escaped = login.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={nonce}"
        self._nonce = nonce
        self._server_signature = b""

    def first(self) -> bytes:
        """``client-first-message``."""
        return (self._header + self._bare).encode()

    def final(self, server_first: bytes) -> bytes:
        """``client-final-message`` for the server's answer."""
        fields = dict(field.split("=", 1) for field in server_first.decode().split(","))
        assert fields["r"].startswith(self._nonce)
        assert len(fields["r"]) > len(self._nonce)
        salted = hashlib.pbkdf2_hmac(
            "sha256", self._password.encode(), base64.b64decode(fields["s"]), int(fields["i"])
        )
        bound = base64.b64encode(self._header.encode() + self._binding)
        unproven = b"c=" + bound + b",r=" + fields["r"].encode()
        message = b",".join((self._bare.encode(), server_first, unproven))
        client_key = _hmac(salted, b"Client Key")
        signature = _hmac(hashlib.sha256(client_key).digest(), message)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), message)
        return unproven + b",p=" + base64.b64encode(proof)

    def trusts(self, server_final: bytes) -> bool:
        """Whether the server has shown that it knows the password too."""
        return server_final == b"v=" + base64.b64encode(self._server_signature)
