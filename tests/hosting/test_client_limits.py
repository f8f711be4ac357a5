"""The limits on clients that settings come to."""

from __future__ import annotations

from sys import maxsize

import pytest
from twisted.internet.task import Clock

from relaymail.assembly import client_limits
from relaymail.settings import load
from relaymail.smtp.limits import Allowance


def allowances(**environ: str) -> tuple[Allowance, Allowance]:
    """On the MX, and on the submission listeners."""
    names = {f"Smtp__Limits__{name}": value for name, value in environ.items()}
    found = client_limits(load(None, names, demo=True).settings, Clock())
    return found["mx"].allowance, found["submission"].allowance


def test_rates_are_for_the_mx_and_connections_for_both() -> None:
    assert allowances() == (Allowance(20, 60, 100, 500), Allowance(50))


@pytest.mark.parametrize(
    ("environ", "mx", "submission"),
    [
        ({"ConnectionsPerClient": "7"}, 7, 7),
        ({"ConnectionsPerClient__Mx": "7"}, 7, 50),
        ({"ConnectionsPerClient__Submission": "0"}, 20, maxsize),
    ],
)
def test_each_kind_of_listener_has_its_own(environ: dict[str, str], mx: int, submission: int) -> None:
    assert tuple(allowance.connections for allowance in allowances(**environ)) == (mx, submission)


def test_0_is_no_limit() -> None:
    names = ("ConnectionsPerMinute", "MessagesPerMinute", "RecipientsPerMinute")
    assert allowances(**dict.fromkeys(names, "0"))[0] == Allowance(20)


def test_exempt_networks_are_those_of_the_settings() -> None:
    names = {"Smtp__Limits__ExemptNetworks__0": "192.0.2.0/24"}
    limits = client_limits(load(None, names, demo=True).settings, Clock())["mx"]
    assert limits.enter("192.0.2.9") is None
    assert limits.enter("127.0.0.1") is not None
