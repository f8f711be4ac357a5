"""MTA-STS as text (RFC 8461 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.delivery.mta_sts_policy import LONGEST_AGE, Policy, PolicyError, parse_policy, parse_records


def policy(**changed: str | None) -> str:
    """A good policy's text with some fields changed, or left out where ``None``."""
    fields = {"version": "STSv1", "mode": "enforce", "mx": "mx.example.test", "max_age": "604800", **changed}
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ("v=STSv1; id=20160831085700Z;", "20160831085700Z"),
        ("v=STSv1;id=1", "1"),
        ("v=STSv1 ; \t id=abc ; other=x", "abc"),
        ("v=STSv1; other=id; id=abc", "abc"),
        ("v=STSv1; id=" + "x" * 32, "x" * 32),
    ],
)
def test_the_id_is_read_from_the_record(record: str, found: str) -> None:
    assert parse_records([record]) == found
    assert parse_records(["v=spf1 -all", record, "v=STSv2; id=3", "v=STSv11; id=4"]) == found


@pytest.mark.parametrize(
    "records",
    [
        [],
        [""],
        ["v=spf1 -all"],
        ["v=STSv1"],
        ["v=STSv1;"],
        ["v=STSv1; id="],
        ["v=STSv1; id=with-dash"],
        ["v=STSv1; id=" + "x" * 33],
        ["v=STSv1; id=ümlaut"],
        ["v=STSv1; ID=1"],
        ["V=STSv1; id=1"],
        [" v=STSv1; id=1"],
        ["id=1; v=STSv1"],
        ["v=STSv1; id=1", "v=STSv1; id=1"],
        ["v=STSv1; id=1", "v=STSv1; id=2;"],
    ],
)
def test_records_that_announce_nothing(records: list[str]) -> None:
    with pytest.raises(PolicyError):
        parse_records(records)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_policy_is_read(end: str) -> None:
    text = end.join(
        ["version: STSv1", "mode:enforce", "mx: mail.example.com", "mx:\t *.Example.NET ", "max_age: 604800"]
    )
    expected = Policy("enforce", 604800, ("mail.example.com", "*.example.net"))
    assert parse_policy(text) == expected
    assert parse_policy(text + end) == expected
    assert parse_policy(end + text + end + end) == expected


def test_fields_may_come_in_any_order_and_unknown_ones_are_passed_over() -> None:
    text = "x-y.z_1: what: ever ü\nmax_age: 5\nmx: a.test\nmode: testing\nversion: STSv1\n"
    assert parse_policy(text) == Policy("testing", 5, ("a.test",))


def test_of_a_field_that_comes_twice_the_first_counts() -> None:
    assert parse_policy(policy() + "mode: none\nmax_age: 1\nversion: STSv2\n") == parse_policy(policy())


def test_a_policy_of_mode_none_needs_no_mx() -> None:
    assert parse_policy(policy(mode="none", mx=None)) == Policy("none", 604800, ())


@pytest.mark.parametrize(
    ("given_age", "age"),
    [("0", 0), ("31557600", LONGEST_AGE), ("31557601", LONGEST_AGE), ("9999999999", LONGEST_AGE)],
)
def test_the_lifetime_has_a_limit(given_age: str, age: int) -> None:
    assert parse_policy(policy(max_age=given_age)).max_age == age


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html><body>Not found</body></html>",
        policy(version=None),
        policy(version="STSv2"),
        policy(version="stsv1"),
        policy(mode=None),
        policy(mode="Enforce"),
        policy(mode="report"),
        policy(mx=None),
        policy(mx=""),
        policy(mx="*"),
        policy(mx="*."),
        policy(mx="mx.*.test"),
        policy(mx="*mx.test"),
        policy(mx="*.*.test"),
        policy(mx="mx..test"),
        policy(mx="-mx.test"),
        policy(mx="bücher.test"),
        policy(mx="a.test b.test"),
        policy(mx="a." * 130 + "test"),
        policy(max_age=None),
        policy(max_age="-1"),
        policy(max_age="1.5"),
        policy(max_age="١"),
        policy(max_age="12345678901"),
        policy(max_age=""),
        policy() + "no colon\n",
        policy() + ": no name\n",
        policy() + " indented: x\n",
        policy().replace("\r\n", "\r"),
    ],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(PolicyError):
        parse_policy(text)


@pytest.mark.parametrize(
    ("pattern", "host", "named"),
    [
        ("mx.example.test", "mx.example.test", True),
        ("mx.example.test", "MX.Example.TEST.", True),
        ("mx.example.test", "a.mx.example.test", False),
        ("mx.example.test", "example.test", False),
        ("*.example.test", "mx.example.test", True),
        ("*.Example.test.", "mx.example.test", True),
        ("*.example.test", "a.mx.example.test", False),
        ("*.example.test", "example.test", False),
        ("*.example.test", ".example.test", False),
        ("*.test", "test", False),
    ],
)
def test_hosts_are_named_by_name_or_by_pattern(pattern: str, host: str, named: bool) -> None:
    assert parse_policy(policy(mx=pattern)).names(host) == named


@given(
    st.text(max_size=300)
    | st.lists(st.sampled_from(["version: STSv1", "mode: none", "max_age: 1", "mx: a.b", "x", ":"])).map(
        "\n".join
    )
)
def test_any_text_is_a_policy_or_an_error(text: str) -> None:
    try:
        found = parse_policy(text)
    except PolicyError:
        return
    assert 0 <= found.max_age <= LONGEST_AGE
    assert found.mx or found.mode == "none"


@given(st.lists(st.text(max_size=60) | st.just("v=STSv1; id=1"), max_size=4))
def test_any_records_have_an_id_or_none(texts: list[str]) -> None:
    try:
        found = parse_records(texts)
    except PolicyError:
        return
    assert 1 <= len(found) <= 32
