"""Log events as lines: for people, or as JSON. Nothing in an event can make a second line or forge one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

LONGEST_MESSAGE = 16_384
"""Characters of a message; the rest is left out."""
LONGEST_TRACEBACK = 65_536
LONGEST_FIELD = 4_096

LEVEL_NAMES = {
    LogLevel.debug: "debug",
    LogLevel.info: "info",
    LogLevel.warn: "warning",
    LogLevel.error: "error",
    LogLevel.critical: "critical",
}

# Control characters, what Unicode takes for a line break, what turns the direction of text, lone surrogates
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

# Keys of events that are not the caller's fields: the log system's own, and those of twisted.python.log
_NOT_FIELDS = frozenset(
    {"message", "time", "system", "format", "isError", "failure", "why", "printed", "logLevel"}
)

Render = Callable[[LogEvent], str]
"""From an event to its line or lines, line end included; empty: there is nothing to say."""


def escape(text: str) -> str:
    """``text`` on one line: control characters and their kin as ``\\n``, ``\\x1b``, ``\\u2028``."""
    return text if text.isprintable() else _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def as_text(event: LogEvent) -> str:
    """``2026-01-31T12:00:00.000Z INFO smtp.server Message``; a traceback follows on indented lines."""
    failure = _failure(event)
    message = _message(event, failure)
    if not message:
        return ""
    head = f"{_time(event)} {_level(event).upper():8} {_logger(event)} {escape(message)}\n"
    if failure is None:
        return head
    lines = _traceback(failure).splitlines()
    return head + "".join(f"    {escape(line)}\n" for line in lines)


def as_json(event: LogEvent) -> str:
    """One JSON object: time, level, logger, message, the event's simple fields, exception.

    A field whose name is taken is called ``field_…``.
    """
    failure = _failure(event)
    message = _message(event, failure)
    if not message:
        return ""
    entry: dict[str, Any] = {
        "time": _time(event),
        "level": _level(event),
        "logger": _logger(event),
        "message": message,
    }
    for key, value in event.items():
        if not key.startswith("log_") and key not in _NOT_FIELDS and _is_simple(value):
            entry[key if key not in entry and key != "exception" else f"field_{key}"] = _simple(value)
    if failure is not None:
        entry["exception"] = {
            "type": failure.type.__name__ if failure.type is not None else "",
            "traceback": _traceback(failure),
        }
    return json.dumps(entry) + "\n"


def _failure(event: LogEvent) -> Failure | None:
    failure = event.get("log_failure") or event.get("failure")
    return failure if isinstance(failure, Failure) else None


def _message(event: LogEvent, failure: Failure | None) -> str:
    if failure is not None and "log_failure" not in event:
        # twisted.python.log.err: its text would be the traceback once more
        message = str(event.get("why") or "Unhandled error")
    else:
        message = _formatted(event)
    if not message and failure is not None:
        message = f"Unhandled {failure.type.__name__ if failure.type is not None else 'error'}"
    return message if len(message) <= LONGEST_MESSAGE else message[:LONGEST_MESSAGE] + " […]"


def _formatted(event: LogEvent) -> str:
    """The text of an event: by ``str.format`` where that will do, which costs a tenth of Twisted's
    formatting."""
    form = event.get("log_format")
    if type(form) is str and "log_flattened" not in event:
        try:
            return form.format_map(event)
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            pass
    return formatEvent(event)


def _traceback(failure: Failure) -> str:
    text = failure.getTraceback()
    return text if len(text) <= LONGEST_TRACEBACK else text[:LONGEST_TRACEBACK] + "\n[…]"


def _time(event: LogEvent) -> str:
    when = event.get("log_time", 0.0)
    second = int(when)
    return f"{_second(second)}.{int((when - second) * 1000):03}Z"


@lru_cache(maxsize=4)
def _second(when: int) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _level(event: LogEvent) -> str:
    return LEVEL_NAMES.get(event.get("log_level", LogLevel.info), "info")


def _logger(event: LogEvent) -> str:
    return _short(str(event.get("log_namespace") or "-"))


@lru_cache(maxsize=256)
def _short(namespace: str) -> str:
    return escape(namespace.removeprefix("relaymail.").replace(" ", "_"))


def _is_simple(value: object) -> bool:
    return value is None or isinstance(value, str | int | float | UUID)


def _simple(value: object) -> object:
    """``value`` as JSON has it: infinities and ids as text, long text cut."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**53) < value < 2**53 else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    return str(value)[:LONGEST_FIELD]
