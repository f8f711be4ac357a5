"""Which events are written, and where to."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogLevel, globalLogPublisher
from twisted.python import log as old_log

from relaymail.settings.model import Logging
from relaymail.settings.model import LogLevel as LogLevelSetting
from relaymail.telemetry import bridge_standard_logging, observer
from tests.conftest import reactor

LEVELS = ["debug", "info", "warn", "error", "critical"]


def written(setting: str, log_format: str = "text") -> str:
    """What is written of one event of each level of a logger of ours."""
    stream = io.StringIO()
    settings = Logging(log_level=LogLevelSetting(default=setting), format=log_format)  # type: ignore[arg-type]
    log = Logger(namespace="relaymail.test", observer=observer(settings, stream))
    for level in LEVELS:
        log.emit(LogLevel.lookupByName(level), "at {at}", at=level)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("setting", "first"),
    [("Trace", 0), ("Debug", 0), ("Information", 1), ("Warning", 2), ("Error", 3), ("Critical", 4)],
)
def test_the_level_says_what_is_written(setting: str, first: int) -> None:
    assert [line.split()[-1] for line in written(setting).splitlines()] == LEVELS[first:]


def test_the_format_says_how_it_is_written() -> None:
    entries = [json.loads(line) for line in written("Warning", "json").splitlines()]
    assert [entry["message"] for entry in entries] == ["at warn", "at error", "at critical"]


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Everything logged in the process at Information, as text."""
    stream = io.StringIO()
    watching = observer(Logging(), stream)
    globalLogPublisher.addObserver(watching)
    yield stream
    globalLogPublisher.removeObserver(watching)


@pytest.fixture
def debug_stream() -> Iterator[io.StringIO]:
    """Everything logged in the process at Debug, as text."""
    stream = io.StringIO()
    watching = observer(Logging(log_level=LogLevelSetting(default="Debug")), stream)
    globalLogPublisher.addObserver(watching)
    yield stream
    globalLogPublisher.removeObserver(watching)


async def test_twisted_talking_to_itself_is_left_out_unless_debugging(
    stream: io.StringIO, debug_stream: io.StringIO
) -> None:
    port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
    await port.stopListening()
    Logger().info("ours")
    assert "Starting factory" in debug_stream.getvalue()
    assert "Closed)" in debug_stream.getvalue()
    [line] = stream.getvalue().splitlines()
    assert line.endswith("ours")


def test_errors_of_twisted_and_of_its_old_log_are_written(stream: io.StringIO) -> None:
    try:
        raise ValueError("deep inside")
    except ValueError:
        old_log.err(None, "It failed")
    Logger(namespace="twisted.web.http").warn("web warning")
    assert "It failed" in stream.getvalue()
    assert "ValueError: deep inside" in stream.getvalue()
    assert "web warning" in stream.getvalue()


def test_the_signal_that_ends_the_process_is_written(stream: io.StringIO) -> None:
    Logger(namespace="twisted.internet.base").info("Received SIGTERM, shutting down.")
    assert "Received SIGTERM" in stream.getvalue()


def test_a_stream_that_cannot_write_a_letter_gets_it_escaped() -> None:
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii")
    Logger(namespace="x", observer=observer(Logging(), narrow)).info("Grüße")
    assert raw.getvalue().endswith(b"Gr\\xfc\\xdfe\n")


def test_each_line_is_flushed() -> None:
    raw = io.BytesIO()
    buffered = io.TextIOWrapper(raw, encoding="utf-8", write_through=False)
    Logger(namespace="x", observer=observer(Logging(), buffered)).info("now")
    assert raw.getvalue().endswith(b"now\n")


def test_warnings_of_libraries_with_the_standard_log_arrive_once(stream: io.StringIO) -> None:
    bridge_standard_logging()
    bridge_standard_logging()
    logging.getLogger("some.library").warning("took %d tries", 3)
    logging.getLogger("some.library").info("chatter")
    [line] = stream.getvalue().splitlines()
    assert line.endswith("WARNING  some.library took 3 tries")


def test_a_record_of_the_standard_log_with_wrong_arguments_is_not_lost(stream: io.StringIO) -> None:
    bridge_standard_logging()
    [bridge] = [handler for handler in logging.getLogger().handlers if "Bridge" in type(handler).__name__]
    bridge.handle(logging.LogRecord("some.library", logging.ERROR, "", 0, "wrong arguments %d", ("x",), None))
    assert stream.getvalue().endswith("ERROR    some.library wrong arguments %d\n")
