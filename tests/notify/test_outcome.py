"""What a status or an error means for the row and for the endpoint."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from relaymail.notify.outcome import RETRY_AFTER_LIMIT, Verdict, from_error, from_status, retry_after

SENT, REFUSED, UNAVAILABLE = Verdict.SENT, Verdict.REFUSED, Verdict.UNAVAILABLE


@pytest.mark.parametrize(
    ("code", "verdict", "slow", "certain"),
    [
        (200, SENT, False, True),
        (204, SENT, False, True),
        (302, UNAVAILABLE, True, True),
        (307, UNAVAILABLE, True, True),
        (400, REFUSED, True, True),
        (401, UNAVAILABLE, True, True),
        (403, UNAVAILABLE, True, True),
        (404, REFUSED, True, True),
        (408, UNAVAILABLE, False, False),
        (422, REFUSED, True, True),
        (429, UNAVAILABLE, False, True),
        (500, UNAVAILABLE, False, False),
        (503, UNAVAILABLE, False, False),
        (999, UNAVAILABLE, False, False),
    ],
)
def test_a_status_is_judged(code: int, verdict: Verdict, slow: bool, certain: bool) -> None:
    outcome = from_status(code)
    assert (outcome.verdict, outcome.slow, outcome.certain) == (verdict, slow, certain)
    assert str(code) in outcome.reason


@pytest.mark.parametrize(
    ("error", "reason", "certain"),
    [
        (ConnectionRefusedError(), "connection refused", True),
        (DNSLookupError(), "the host name could not be resolved", True),
        (ConnectionLost(), "the connection was closed before an answer", False),
        (
            ResponseNeverReceived([Failure(ConnectionLost())]),
            "the connection was closed before an answer",
            False,
        ),
        (ValueError("sécret\r\n"), "no proper answer (ValueError)", True),
    ],
)
def test_an_error_is_told_in_our_own_words(error: BaseException, reason: str, certain: bool) -> None:
    outcome = from_error(error)
    assert (outcome.verdict, outcome.reason, outcome.certain) == (UNAVAILABLE, reason, certain)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        (None, None, 0),
        (b"7", None, 7),
        (b" 120 ", None, 120),
        (b"99999999999999999999", None, RETRY_AFTER_LIMIT),
        (b"-5", None, 0),
        (b"soon", None, 0),
        (b"soon", b"Sat, 21 Nov 2026 10:00:00 GMT", 0),
        (b"Sat, 21 Nov 2026 10:00:30 GMT", b"Sat, 21 Nov 2026 10:00:00 GMT", 30),
        (b"Sat, 21 Nov 2026 09:00:00 GMT", b"Sat, 21 Nov 2026 10:00:00 GMT", 0),
        (b"Sun, 22 Nov 2026 10:00:00 GMT", b"Sat, 21 Nov 2026 10:00:00 GMT", RETRY_AFTER_LIMIT),
        (b"Sat, 21 Nov 2026 10:00:30 GMT", b"Sat, 21 Nov 2026 10:00:00", 0),
        (b"Sat, 21 Nov 2026 10:00:30 GMT", None, 0),
        (b"\xff\xfe", b"\xff", 0),
        ("２".encode(), None, 0),
    ],
)
def test_retry_after_is_read_and_bounded(value: bytes | None, date: bytes | None, seconds: float) -> None:
    assert retry_after(value, date) == seconds
