"""TimeSpan texts."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relaymail.settings import SettingsError
from relaymail.settings.timespan import TICKS, format_timespan, parse_timespan

DAY = 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:15:00", 900.0),
        ("0:0:1", 1.0),
        ("00:15", 900.0),
        ("7.00:00:00", 7.0 * DAY),
        ("1:02:03:04", DAY + 7384.0),
        ("1.02:03:04.5", DAY + 7384.5),
        ("00:00:00.0000001", 1e-7),
        ("23:59:59.9999999", DAY - 1e-7),
        ("90", 90.0),
        ("0.25", 0.25),
        (" 5 ", 5.0),
        ("0", 0.0),
    ],
)
def test_they_are_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_timespan(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "x", "-1", "-00:00:01", "1e3", "nan", "inf", "24:00:00", "00:60:00", "00:00:60",
     "1.5:00", "1:", ":1", "1.", "00:00:00.12345678", "1.2.3", "٣", "1 2", "00:00:00:00:00", "9" * 400],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_timespan(text)


# below 2**53 ticks (28 years) a float holds every tick
@given(st.integers(0, 2**53).map(lambda ticks: ticks / TICKS))
@example(0.0)
@example(86399.9999999)
def test_what_is_written_is_read_back(seconds: float) -> None:
    assert parse_timespan(format_timespan(seconds)) == seconds


@given(st.one_of(st.text(max_size=20), st.text("0123456789.: -", max_size=20)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        seconds = parse_timespan(text)
    except SettingsError:
        return
    assert seconds >= 0
