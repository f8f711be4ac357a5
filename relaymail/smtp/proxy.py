"""The PROXY protocol, versions 1 and 2 (the client of a load balancer). Pure: the listener moves bytes."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final

LONGEST_V1: Final = 107
"""Octets of a version 1 header, its CRLF included."""
LONGEST_V2: Final = 16 + 2048
"""Octets of a version 2 header that are read; addresses and what follows them are far shorter."""

_V1: Final = b"PROXY "
_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


class ProxyError(ValueError):
    """Not a PROXY header, or one that is no good."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """What the header said, and how many octets it took."""

    length: int
    client: tuple[str, int] | None
    """Address and port of the client; ``None`` where the proxy speaks for itself (LOCAL, UNKNOWN)."""


def parse_header(data: bytes) -> ProxyHeader | None:
    """Read the header that ``data`` begins with; ``None`` while it is not complete.

    Raises :exc:`ProxyError`.
    """
    if data[: len(_V2)] == _V2:
        return _version_2(data)
    if data[: len(_V1)] == _V1:
        return _version_1(data)
    if _V2.startswith(data) or _V1.startswith(data):
        return None
    raise ProxyError("no PROXY header")


def _version_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise ProxyError("a version 1 header is too long")
        return None
    fields = data[:end].split(b" ")
    length = end + 2
    if len(fields) >= 2 and fields[1] == b"UNKNOWN":
        return ProxyHeader(length, None)
    if len(fields) != 6 or fields[1] not in {b"TCP4", b"TCP6"}:
        raise ProxyError("a version 1 header is malformed")
    address, port = fields[2].decode("latin-1"), fields[4].decode("latin-1")
    kind = ipaddress.IPv4Address if fields[1] == b"TCP4" else ipaddress.IPv6Address
    try:
        client = str(kind(address))
    except ValueError:
        raise ProxyError("a version 1 header has no address") from None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ProxyError("a version 1 header has no port")
    return ProxyHeader(length, (client, int(port)))


def _version_2(data: bytes) -> ProxyHeader | None:
    if len(data) < 16:
        return None
    command, family, size = struct.unpack_from("!BBH", data, 12)
    length = 16 + size
    if command not in {_LOCAL, _PROXY}:
        raise ProxyError("a version 2 header has an unknown command")
    if length > LONGEST_V2:
        raise ProxyError("a version 2 header is too long")
    if len(data) < length:
        return None
    if command == _LOCAL:
        return ProxyHeader(length, None)
    if family == _TCP4 and size >= 12:
        host, port = str(ipaddress.IPv4Address(data[16:20])), struct.unpack_from("!H", data, 24)[0]
    elif family == _TCP6 and size >= 36:
        host, port = str(ipaddress.IPv6Address(data[16:32])), struct.unpack_from("!H", data, 48)[0]
    elif family in {_TCP4, _TCP6}:
        raise ProxyError("a version 2 header is too short for its addresses")
    else:
        return ProxyHeader(length, None)
    return ProxyHeader(length, (host, port))
