"""What counts as nearly the same name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.settings.spelling import distance, nearest


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("", "", 0),
        ("", "ab", 2),
        ("smtp", "smpt", 1),
        ("port", "prot", 1),
        ("imap", "smtp", 2),
        ("ca", "abc", 3),
    ],
)
def test_edits_are_counted(one: str, other: str, edits: int) -> None:
    assert distance(one, other) == distance(other, one) == edits


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_distance_is_bounded_and_zero_for_the_same_only(one: str, other: str) -> None:
    found = distance(one, other)
    assert abs(len(one) - len(other)) <= found <= max(len(one), len(other))
    assert (found == 0) == (one == other)


def test_short_names_must_be_closer() -> None:
    assert nearest("Prot", ["Port"]) == "Port"
    assert nearest("Pt", ["Port"]) is None
    assert nearest("HostedDomians", ["HostedDomains"]) == "HostedDomains"
    assert nearest("hosted-domain", ["HostedDomains"]) == "HostedDomains"
    assert nearest("Domains", ["HostedDomains"]) is None
    assert nearest("x" * 10_000, ["HostedDomains"]) is None


def test_the_nearest_wins() -> None:
    assert nearest("Porta", ["Ports", "Port", "Porte"]) in ("Ports", "Port", "Porte")
    assert nearest("Eventz", ["Vents", "Events"]) == "Events"
