"""Where a listener on all addresses is reached from its own machine."""

from __future__ import annotations

import pytest

from relaymail.health import loopback
from tests.support.ipv6 import needs_ipv6


@pytest.mark.parametrize(
    ("listens", "reached"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        pytest.param("::", "::1", marks=needs_ipv6),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
    ],
)
def test_wildcards_are_reached_over_loopback(listens: str, reached: str) -> None:
    assert loopback.reachable(listens) == reached


def test_a_machine_without_ipv6_is_reached_over_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket of systemd on ``::`` takes IPv4, too."""
    monkeypatch.setattr(loopback, "IPV6", "2001:db8::1")
    assert loopback.reachable("::") == "127.0.0.1"
