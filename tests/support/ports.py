"""Ports for programs that must be told theirs beforehand, and ports that nobody listens on."""

from __future__ import annotations

import random
import socket


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listens on.

    They are out of the range that outgoing connections and port 0 get theirs from: no other test that runs at
    the same time gets one of them by accident before it is used.
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return list(found)


def free_port() -> int:
    """One of them."""
    (port,) = free_ports(1)
    return port
