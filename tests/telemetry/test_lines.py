"""What a log line looks like, and that nothing a client sent can forge one."""

from __future__ import annotations

import json
import unicodedata
from typing import Any
from uuid import UUID

import pytest
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure

from relaymail.telemetry.lines import as_json, as_text, escape


def event(log_format: str | None, level: Any = LogLevel.info, **fields: Any) -> LogEvent:
    return {
        "log_time": 1769860800.1239,
        "log_level": level,
        "log_namespace": "relaymail.smtp.server",
        "log_format": log_format,
        **fields,
    }


def a_failure(message: str = "it broke") -> Failure:
    try:
        raise ValueError(message)
    except ValueError:
        return Failure()


def test_a_line_has_time_level_namespace_and_message() -> None:
    line = as_text(event("Stored message {message_id}", message_id="m1"))
    assert line == "2026-01-31T12:00:00.123Z INFO     smtp.server Stored message m1\n"


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (LogLevel.debug, "debug"),
        (LogLevel.warn, "warning"),
        (LogLevel.error, "error"),
        (LogLevel.critical, "critical"),
    ],
)
def test_levels_have_their_names(level: Any, name: str) -> None:
    assert as_text(event("x", level)).split()[1] == name.upper()
    assert json.loads(as_json(event("x", level)))["level"] == name


def test_control_characters_cannot_forge_a_line() -> None:
    forged = "x\r\n2026-01-31T12:00:00.123Z INFO  smtp Stored\x1b[2J\x00\x85\u2028\u2029\u202e\ud800"
    line = as_text(event("Unknown command {command}", command=forged))
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert line.splitlines() == [line[:-1]], "no character is a line break to anyone"
    assert r"x\r\n2026" in line
    assert r"\x1b[2J\x00\x85\u2028\u2029\u202e\ud800" in line
    line.encode("utf-8")


def test_no_unsafe_character_of_unicode_is_left() -> None:
    whole = "".join(
        chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in ("Cc", "Zl", "Zp", "Cs")
    )
    assert not any(unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") for c in escape(whole))


def test_letters_of_all_scripts_are_left_alone() -> None:
    assert escape("Grüße, 你好 🎉 \\ \"'") == "Grüße, 你好 🎉 \\ \"'"


def test_a_traceback_follows_indented() -> None:
    text = as_text(
        event("Storing failed", LogLevel.error, log_failure=a_failure("bad\n2026-01-31 forged\x1b"))
    )
    head, *rest = text.splitlines()
    assert head.endswith("Storing failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert any("ValueError: bad" in line for line in rest)
    assert "\x1b" not in text


def test_an_error_logged_the_old_way_has_its_traceback_once() -> None:
    old = event(
        "{log_text}", LogLevel.critical, log_text="Traceback …\nx", failure=a_failure(), isError=1, why=None
    )
    head, *rest = as_text(old).splitlines()
    assert head.endswith("Unhandled error")
    assert sum("ValueError: it broke" in line for line in rest) == 1


def test_a_failure_without_a_message_is_not_lost() -> None:
    assert "Unhandled ValueError" in as_text(event("", LogLevel.critical, log_failure=a_failure()))


def test_an_event_that_says_nothing_is_no_line() -> None:
    assert as_text(event(None)) == ""
    assert as_json(event(None)) == ""


def test_an_event_that_cannot_be_formatted_is_a_line_all_the_same() -> None:
    line = as_text(event("{missing.attribute}"))
    assert line.count("\n") == 1
    assert "nable to format" in line


def test_endless_text_is_cut() -> None:
    assert len(as_text(event("{text}", text="x" * 1_000_000))) < 17_000
    assert len(as_json(event("{text}", text="x" * 1_000_000))) < 22_000


def test_json_has_the_fields_of_the_event() -> None:
    fields = {
        "message_id": UUID(int=5),
        "size": 4096,
        "seconds": 0.25,
        "tls": True,
        "login": None,
        "peer": object(),
        "big": 2**70,
        "nan": float("nan"),
    }
    entry = json.loads(as_json(event("Stored {size}", **fields)))
    assert entry == {
        "time": "2026-01-31T12:00:00.123Z",
        "level": "info",
        "logger": "smtp.server",
        "message": "Stored 4096",
        "message_id": "00000000-0000-0000-0000-000000000005",
        "size": 4096,
        "seconds": 0.25,
        "tls": True,
        "login": None,
        "big": str(2**70),
        "nan": "nan",
    }


def test_a_field_cannot_take_the_place_of_the_lines_own() -> None:
    entry = json.loads(
        as_json(event("x", logger="mine", message_id=1, exception="none") | {"level": "fatal"})
    )
    assert entry["logger"] == "smtp.server"
    assert entry["level"] == "info"
    assert (entry["field_logger"], entry["field_level"], entry["field_exception"]) == (
        "mine",
        "fatal",
        "none",
    )


def test_json_is_one_ascii_line_whatever_is_in_it() -> None:
    line = as_json(event("{x}", x="a\nb\u2028\ud800\x00é", log_failure=a_failure("two\nlines")))
    assert line.count("\n") == 1
    assert line.isascii()
    entry = json.loads(line)
    assert entry["message"] == "a\nb\u2028\ud800\x00é"
    assert entry["exception"]["type"] == "ValueError"
    assert "two\nlines" in entry["exception"]["traceback"]
