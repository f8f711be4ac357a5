"""How many connections a destination gets."""

from __future__ import annotations

import pytest

from relaymail.delivery import destinations
from relaymail.delivery.destinations import Destinations


def open_all(to: Destinations, key: str = "mx.example.org", domain: str = "example.org") -> int:
    """Open as many connections as may be; how many there are then."""
    while to.has_room(key, domain):
        to.opened(key)
    return to.count(key)


def test_it_begins_with_two_and_grows_to_ten() -> None:
    to = Destinations(50)
    assert open_all(to) == 2
    for expected in (3, 4, 5, 6, 7, 8, 9, 10, 10):
        to.took_mail("mx.example.org", "example.org")
        assert open_all(to) == expected


def test_what_is_pushed_back_is_halved_down_to_one() -> None:
    to = Destinations(50)
    for _ in range(20):
        to.took_mail("mx.example.org", "example.org")
    allowed = []
    for _ in range(5):
        to.pushed_back("mx.example.org")
        allowed.append(to.allowed("mx.example.org", "example.org"))
    assert allowed == [5, 2, 1, 1, 1]
    to.took_mail("mx.example.org", "example.org")
    assert to.allowed("mx.example.org", "example.org") == 2


def test_all_together_get_no_more_than_the_limit() -> None:
    to = Destinations(3)
    assert open_all(to, "a", "a.example") == 2
    assert open_all(to, "b", "b.example") == 1
    assert to.free == 0
    assert open_all(to, "c", "c.example") == 0
    to.closed("a")
    assert open_all(to, "c", "c.example") == 1


def test_a_domain_may_have_a_limit_of_its_own() -> None:
    to = Destinations(50)
    to.overrides = {"small.example": 1, "large.example": 30}
    for _ in range(100):
        to.took_mail("small", "small.example")
        to.took_mail("large", "large.example")
    assert open_all(to, "small", "small.example") == 1
    assert open_all(to, "large", "large.example") == 30
    # Another domain at the same hosts does not profit
    assert to.allowed("large", "other.example") == 10


def test_a_domain_of_little_does_not_take_from_its_neighbours() -> None:
    to = Destinations(50)
    to.overrides = {"small.example": 1}
    for _ in range(10):
        to.took_mail("shared", "large.example")
    to.took_mail("shared", "small.example")
    assert to.allowed("shared", "large.example") == 10


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destinations, "REMEMBERED", 10)
    to = Destinations(50)
    to.opened("kept")
    to.took_mail("kept", "kept.example")
    for n in range(100):
        to.opened(str(n))
        to.closed(str(n))
    assert to.allowed("kept", "kept.example") == 3
    assert to.count("kept") == 1
    assert len(to._known) <= 12
