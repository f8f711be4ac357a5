"""Whether the collector takes what is sent to it: a line when it does no more, one when it does again."""

from __future__ import annotations

import logging
import threading
from typing import Final

from twisted.logger import Logger

log = Logger()

EXPORTERS: Final = "opentelemetry.exporter"
"""The loggers of the exporters, which say the same several times for each export."""
LONGEST: Final = 300
"""Characters of a reason."""


class Reach(logging.Handler):
    """Listens to the exporters in place of the log. Safe from any thread: each exporter has its own."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._guard = threading.Lock()
        self._away = False
        self._why: str | None = None

    def start(self) -> None:
        """Take what the exporters say."""
        logger = logging.getLogger(EXPORTERS)
        logger.addHandler(self)
        logger.propagate = False

    def stop(self) -> None:
        """Let them speak for themselves again."""
        logger = logging.getLogger(EXPORTERS)
        logger.removeHandler(self)
        logger.propagate = True

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what an exporter says, until it is known whether the export failed."""
        if record.levelno < logging.ERROR or self._why is None:
            # The error behind the warnings says only that it gave up
            self._why = record.getMessage()[:LONGEST]

    def note(self, success: bool) -> None:
        """An export ended."""
        with self._guard:
            changed, self._away = self._away == success, not success
        if not changed:
            return
        if success:
            self._why = None
            log.info("The OpenTelemetry collector takes metrics and traces again")
        else:
            log.warn(
                "The OpenTelemetry collector takes nothing: {why}", why=self._why or "no reason is known"
            )
