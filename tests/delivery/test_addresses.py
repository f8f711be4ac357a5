"""Which addresses are tried, which are ours, and which are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.delivery.addresses import OwnHost, choose, is_local, is_v6, literal_address, reachable, usable

V4 = st.integers(1, 250).map(lambda n: f"192.0.2.{n}")
V6 = st.integers(1, 250).map(lambda n: f"2001:db8::{n:x}")
HOSTS = st.lists(st.lists(V4 | V6, max_size=8, unique=True), max_size=8)


@given(HOSTS, st.integers(1, 8))
def test_as_many_addresses_are_chosen_as_may_be(found: list[list[str]], most: int) -> None:
    chosen = choose(found, most)
    assert sum(map(len, chosen)) == min(most, sum(map(len, found)))
    for mine, all_of_it in zip(chosen, found, strict=True):
        assert set(mine) <= set(all_of_it)
        assert len(set(mine)) == len(mine)


@given(HOSTS, st.integers(1, 8))
def test_no_host_has_two_of_a_family_before_the_others_have_one(found: list[list[str]], most: int) -> None:
    chosen = choose(found, most)
    families = [len({is_v6(address) for address in addresses}) for addresses in found]
    if any(len(mine) > count for mine, count in zip(chosen, families, strict=True)):
        assert all(len(mine) >= count for mine, count in zip(chosen, families, strict=True))


@given(HOSTS, st.integers(2, 8))
def test_both_families_are_tried_where_the_first_host_has_both(found: list[list[str]], most: int) -> None:
    chosen = choose(found, most)
    if found and len({is_v6(address) for address in found[0]}) == 2:
        assert {is_v6(address) for address in chosen[0]} == {True, False}


def test_the_families_alternate_from_host_to_host() -> None:
    found = [["192.0.2.1"], ["192.0.2.2", "2001:db8::2"], ["192.0.2.3", "2001:db8::3"]]
    assert choose(found, 5) == [["192.0.2.1"], ["2001:db8::2", "192.0.2.2"], ["2001:db8::3", "192.0.2.3"]]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:DB8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("example.test", None),
        ("0.0.0.0", None),
        ("::", None),
        ("::ffff:0.0.0.0", None),
        ("255.255.255.255", None),
        ("239.1.2.3", None),
        ("ff02::1", None),
        ("fe80::1%lo", None),
        ("1.2.3", None),
        ("1", None),
        ("", None),
    ],
)
def test_what_is_an_address_of_a_host(text: str, address: str | None) -> None:
    assert literal_address(text) == address


def test_what_is_no_address_at_all_is_an_error() -> None:
    with pytest.raises(ValueError):
        usable("example.test")


def test_the_machines_own_addresses_are_known() -> None:
    assert is_local("127.0.0.1")
    assert is_local("127.9.9.9")
    assert not is_local("192.0.2.1")
    assert not is_local("2001:db8::1")


def test_the_way_to_an_address_is_known() -> None:
    assert reachable("127.0.0.1")
    assert not reachable("fe80::1"), "without the interface it is nowhere"


@pytest.mark.parametrize(
    ("interface", "address", "ours"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("0.0.0.0", "192.0.2.1", True),
        ("0.0.0.0", "2001:db8::1", False),
        ("::", "192.0.2.1", True),
        ("::", "2001:db8::1", True),
        ("", "2001:db8::1", True),
    ],
)
def test_who_listens_on_all_interfaces_has_the_machines_addresses(
    interface: str, address: str, ours: bool
) -> None:
    own = OwnHost([], [(interface, 25)], local=lambda address: True)
    assert own.listens_at(address, 25) == ours
    assert not own.listens_at(address, 26)
    assert OwnHost([], [(interface, 25)], local=lambda address: False).listens_at(address, 25) == (
        interface == address
    )
