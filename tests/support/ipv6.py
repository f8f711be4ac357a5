"""Tests that need IPv6, and whether this machine has it: containers often have not."""

from __future__ import annotations

import socket

import pytest


def has_ipv6() -> bool:
    """Whether one can listen on ``::1``."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
"""Marks a test that does."""
IPV6_LOOPBACK = pytest.param("::1", marks=needs_ipv6)
"""The address as a parameter of a test."""
