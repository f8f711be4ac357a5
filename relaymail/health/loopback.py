"""How a program of this machine reaches what listens on all of its addresses."""

from __future__ import annotations

import socket

IPV4 = "127.0.0.1"
IPV6 = "::1"


def reachable(address: str) -> str:
    """The address to connect to for a listener on ``address``, which may be a wildcard.

    A socket of systemd on ``::`` takes IPv4 as well, which may be all that the machine has.
    """
    if address == "::":
        return IPV6 if _has_ipv6() else IPV4
    return IPV4 if address in ("0.0.0.0", "") else address  # noqa: S104 - compared, not bound


def _has_ipv6() -> bool:
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
            one.bind((IPV6, 0))
    except OSError:
        return False
    return True
