"""Where log events go: one observer for Twisted's log, and a bridge from the standard library's."""

from __future__ import annotations

import logging
from typing import Protocol, TextIO, cast

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel
from zope.interface import implementer

from relaymail.telemetry.lines import Render, as_json, as_text

LEAST = {
    "Trace": LogLevel.debug,
    "Debug": LogLevel.debug,
    "Information": LogLevel.info,
    "Warning": LogLevel.warn,
    "Error": LogLevel.error,
    "Critical": LogLevel.critical,
}
"""The least severe level that each ``Logging:LogLevel:Default`` lets through."""

_SEVERITY = {level: n for n, level in enumerate(LogLevel.iterconstants())}

_CHATTER = ("Starting factory ", "Stopping factory ", "Main loop terminated.")

_STANDARD_LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
)


class LogLevelSettings(Protocol):
    """``Logging:LogLevel``."""

    @property
    def default(self) -> str:
        """A key of :data:`LEAST`."""


class LoggingSettings(Protocol):
    """``Logging``."""

    @property
    def log_level(self) -> LogLevelSettings:
        """``Logging:LogLevel``."""

    @property
    def format(self) -> str:
        """``text`` or ``json``."""


@implementer(ILogObserver)
class LineObserver:
    """Writes events as lines, each flushed: what was logged is out before the process can be killed.

    :param least: the least severe level to write.
    """

    def __init__(self, render: Render, stream: TextIO, least: LogLevel) -> None:
        self._render = render
        self._stream = stream
        self._severity = _SEVERITY[least]
        self._chatter = least is LogLevel.debug

    def __call__(self, event: LogEvent) -> None:
        """Write ``event``, or pass it over."""
        if _SEVERITY.get(event.get("log_level", LogLevel.info), 0) < self._severity:
            return
        if not self._chatter and _is_chatter(event):
            return
        lines = self._render(event)
        if not lines:
            return
        try:
            self._stream.write(lines)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            self._stream.write(lines.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()


def _is_chatter(event: LogEvent) -> bool:
    """Whether this is Twisted telling of its insides: factories, ports, clients, the access log."""
    if event.get("log_level") is not LogLevel.info:
        return False
    namespace = str(event.get("log_namespace", ""))
    if str(event.get("log_format", "")).startswith(_CHATTER):
        return True
    # Everything of ours logs with twisted.logger: twisted.python.log is the old parts of Twisted talking
    return namespace.startswith(("twisted.web.", "twisted.scripts.", "twisted.application.")) or (
        namespace == "log_legacy"
    )


def observer(settings: LoggingSettings, stream: TextIO) -> ILogObserver:
    """An observer for Twisted's log that writes to ``stream`` what ``settings`` ask for, the way they ask."""
    render = as_json if settings.format == "json" else as_text
    return cast(ILogObserver, LineObserver(render, stream, LEAST[settings.log_level.default]))


class _Bridge(logging.Handler):
    """Hands the standard library's log records to Twisted's log."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((ours for theirs, ours in _STANDARD_LEVELS if record.levelno >= theirs), LogLevel.debug)
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        Logger(namespace=record.name).emit(level, "{text}", text=text)


def bridge_standard_logging() -> None:
    """Send warnings and worse of libraries that use :mod:`logging` to Twisted's log."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Bridge) for handler in root.handlers):
        root.addHandler(_Bridge(logging.WARNING))
