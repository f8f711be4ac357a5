"""The parameters of MAIL and RCPT."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymail.smtp.parameters import Offer, check_mail, check_recipient, release_time
from relaymail.smtp.reply import ReplyError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL = Offer(1000, authentication=True, require_tls=True, hold=True, priority=True, now=lambda: NOW)
NONE = Offer(1000, now=lambda: NOW)


def refusal(parameters: dict[str, str | None], offer: Offer = ALL) -> str:
    with pytest.raises(ReplyError) as caught:
        check_mail(parameters, offer)
    answer = caught.value.reply
    return f"{answer.code} {answer.enhanced}"


@pytest.mark.parametrize(
    "parameters",
    [
        {"SIZE": "1000", "BODY": "8bitmime", "SMTPUTF8": None},
        {"BODY": "BINARYMIME"},
        {"AUTH": "<>"},
        {"AUTH": "e+3Dmc2@example.com"},
        {"RET": "hdrs", "ENVID": "QQ314159"},
        {"REQUIRETLS": None},
        {"HOLDFOR": "86400"},
        {"HOLDUNTIL": "2026-01-02T00:00:00Z"},
        {"MT-PRIORITY": "-9"},
    ],
)
def test_what_is_offered_is_taken(parameters: dict[str, str | None]) -> None:
    check_mail(parameters, ALL)


@pytest.mark.parametrize("name", ["AUTH", "REQUIRETLS", "HOLDFOR", "HOLDUNTIL", "MT-PRIORITY", "X-OTHER"])
def test_what_is_not_offered_is_unknown(name: str) -> None:
    assert refusal({name: None}, NONE) == "555 5.5.4"


@pytest.mark.parametrize(
    ("parameters", "answer"),
    [
        ({"SIZE": None}, "501 5.5.4"),
        ({"SIZE": "-1"}, "501 5.5.4"),
        ({"SIZE": "1001"}, "552 5.3.4"),
        ({"SIZE": "9" * 20}, "552 5.3.4"),
        ({"SIZE": "9" * 21}, "501 5.5.4"),
        ({"BODY": "9BIT"}, "501 5.5.4"),
        ({"SMTPUTF8": "yes"}, "501 5.5.4"),
        ({"AUTH": None}, "501 5.5.4"),
        ({"RET": "BODY"}, "501 5.5.4"),
        ({"ENVID": "a" * 101}, "501 5.5.4"),
        ({"ENVID": "a+b"}, "501 5.5.4"),
        ({"REQUIRETLS": "1"}, "501 5.5.4"),
        ({"HOLDFOR": "1", "HOLDUNTIL": "2026-01-02T00:00:00Z"}, "501 5.5.4"),
        ({"HOLDFOR": "999999999"}, "501 5.5.4"),
        ({"HOLDUNTIL": "2026-01-02T00:00:00"}, "501 5.5.4"),
        ({"HOLDUNTIL": "2027-01-02T00:00:00Z"}, "501 5.5.4"),
        ({"HOLDUNTIL": "tomorrow"}, "501 5.5.4"),
        ({"MT-PRIORITY": "10"}, "501 5.5.4"),
    ],
)
def test_what_is_no_good_is_refused(parameters: dict[str, str | None], answer: str) -> None:
    assert refusal(parameters) == answer


@pytest.mark.parametrize(
    "parameters",
    [
        {"NOTIFY": "NEVER"},
        {"NOTIFY": "success,FAILURE,Delay", "ORCPT": "rfc822;Bob+40x@example.com"},
        {"ORCPT": "utf-8;b\xf6b@example.com"},
    ],
)
def test_dsn_parameters_of_a_recipient_are_taken(parameters: dict[str, str | None]) -> None:
    check_recipient(parameters, extended=True)


@pytest.mark.parametrize(
    "parameters",
    [
        {"NOTIFY": None},
        {"NOTIFY": "NEVER,SUCCESS"},
        {"NOTIFY": "SUCCESS,SUCCESS"},
        {"NOTIFY": "SUCCESS,"},
        {"ORCPT": None},
        {"ORCPT": "bob@example.com"},
        {"ORCPT": "rfc822;b b"},
        {"ORCPT": "rfc822;" + "x" * 500},
        {"SIZE": "1"},
    ],
)
def test_other_parameters_of_a_recipient_are_refused(parameters: dict[str, str | None]) -> None:
    with pytest.raises(ReplyError):
        check_recipient(parameters, extended=True)


def test_a_held_message_has_a_time() -> None:
    assert release_time({}, NOW) is None
    assert release_time({"HOLDFOR": "60"}, NOW) == NOW + timedelta(seconds=60)
    assert release_time({"HOLDUNTIL": "2026-01-02T01:00:00+01:00"}, NOW) == datetime(2026, 1, 2, tzinfo=UTC)


NAMES = [
    "SIZE",
    "BODY",
    "SMTPUTF8",
    "AUTH",
    "RET",
    "ENVID",
    "REQUIRETLS",
    "HOLDFOR",
    "HOLDUNTIL",
    "MT-PRIORITY",
]


@given(st.dictionaries(st.sampled_from([*NAMES, "NOTIFY", "ORCPT", "X"]), st.none() | st.text(max_size=40)))
def test_nothing_raises_anything_but_the_refusal(parameters: dict[str, str | None]) -> None:
    for check in (lambda: check_mail(parameters, ALL), lambda: check_recipient(parameters, extended=True)):
        try:
            check()
        except ReplyError:
            pass
