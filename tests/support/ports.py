"""Ports for programs that must be told theirs beforehand, and ports that nobody listens on."""

from __future__ import annotations

import errno
import os
import socket
from itertools import count

_FIRST, _END = 12_000, 32_000
"""Out of the range of outgoing connections and port 0: nobody gets one of these by accident."""

_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_drawn = count(int.from_bytes(os.urandom(4)))


def _next_port() -> int:
    """The next of this process's own part of the range.

    The other parts are those of the other processes pytest-xdist runs tests in: one must not be given what
    another has just found free and not used yet.
    """
    siblings = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    part = (_END - _FIRST) // siblings
    return _FIRST + place % siblings * part + next(_drawn) % part


def _is_free(port: int) -> bool:
    """Whether nobody listens there, on IPv4 or IPv6."""
    for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            probe = socket.socket(family)
        except OSError:
            continue  # a machine without IPv6
        with probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((everywhere, port))
            except OSError as error:
                if error.errno in _NO_IPV6:
                    continue
                return False
    return True


def free_ports(how_many: int) -> list[int]:
    """Different ports that nobody listens on."""
    found: list[int] = []
    while len(found) < how_many:
        port = _next_port()
        if _is_free(port):
            found.append(port)
    return found


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port
