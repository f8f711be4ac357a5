"""The host as twistd knows it: ports before the uid drops, then its parts; signals; how it ends."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, TextIO

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from relaymail.listeners import Listeners
from relaymail.parts import Parts
from relaymail.process import (
    EX_CONFIG,
    EX_UNAVAILABLE,
    StartError,
    raise_file_limit,
    refuse,
    tune_garbage_collection,
)
from relaymail.settings import Loaded
from relaymail.smtp.listener import ListenError
from relaymail.smtp.tls import CertificateError, ServerTLS
from relaymail.store.embedded import EmbeddedPostgresError
from relaymail.telemetry import TelemetryError, bridge_standard_logging, observer

log = Logger()

_EXPECTED = (StartError, EmbeddedPostgresError, ListenError, TelemetryError, CertificateError)
"""What a start may fail with; the text is for the operator."""


class Host(Service):
    """The whole host."""

    name = "relaymail"

    def __init__(self, loaded: Loaded, reactor: Any, *, demo_run: bool, log_stream: TextIO | None) -> None:
        self._settings = loaded.settings
        self._warnings = loaded.warnings
        self._reactor = reactor
        self._demo_run = demo_run
        self._log_stream = log_stream
        self._starting: Deferred[None] | None = None
        self._interrupted = False

    def setServiceParent(self, parent: Any) -> None:
        """Log in our own format, unless twistd was told of a log of its own."""
        if self._log_stream is not None:
            parent.setComponent(ILogObserver, observer(self._settings.logging, self._log_stream))
        Service.setServiceParent(self, parent)

    # Start

    def privilegedStartService(self) -> None:
        """Before the uid drops: ports, certificate."""
        Service.privilegedStartService(self)
        raise_file_limit()
        settings, tls = self._settings, None
        development = self._demo_run or settings.data.embedded_postgres
        try:
            if settings.smtp.certificate_path is not None:
                password = settings.smtp.certificate_password
                tls = ServerTLS(
                    settings.smtp.certificate_path,
                    settings.smtp.certificate_key_path,
                    password.reveal() if password else None,
                )
            self._listeners = Listeners(settings, tls is not None or development, self._reactor)
            self._listeners.bind()
        except CertificateError as error:
            keys = "Smtp:CertificatePath"
            if settings.smtp.certificate_key_path is not None:
                keys += ", Smtp:CertificateKeyPath"
            refuse(f"{keys}: {error}", EX_CONFIG)
        except ListenError as error:
            refuse(str(error), EX_UNAVAILABLE)
        self._parts = Parts(
            settings, self._listeners, tls, self._reactor, demo_run=self._demo_run, development=development
        )

    def startService(self) -> None:
        """Start everything, in order; what fails for good ends the process with a sentence."""
        Service.startService(self)
        self._reactor.callWhenRunning(self._handle_signals)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._failed_to_start)

    async def _start(self) -> None:
        bridge_standard_logging()
        for warning in self._warnings:
            log.warn("Settings: {warning}", warning=warning)
        await self._parts.start(self._failed_to_start)
        tune_garbage_collection()

    def _failed_to_start(self, failure: Failure) -> None:
        """End the process with a sentence: nobody reads a traceback about a port or a disk."""
        if failure.check(CancelledError):
            return
        code = 1
        if isinstance(failure.value, _EXPECTED):
            code = getattr(failure.value, "code", EX_UNAVAILABLE)
            log.critical("Cannot start: {why}", why=str(failure.value))
        else:
            log.failure("Cannot start", failure)
        print(f"relaymail: cannot start: {failure.getErrorMessage()}", file=sys.__stderr__, flush=True)
        # twistd has no way to end with a code of ours once the reactor runs
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, code)
        self._reactor.callWhenRunning(self._stop_reactor)

    # Stop

    def stopService(self) -> Deferred[None]:
        """Stop what has started, last first."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        log.info("Stopping")
        if self._starting is not None:
            self._starting.cancel()
            # What had begun is undone first: a program that makes the database must not outlive us
            await DeferredList([self._starting])
        await self._parts.stop()
        self._listeners.close()
        log.info("Stopped")

    def _handle_signals(self) -> None:
        """The first SIGINT or SIGTERM drains; a second one does not wait for the sessions any longer."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._interrupt))

    def _interrupt(self) -> None:
        if self._interrupted:
            self._listeners.sessions.cut()
        else:
            self._stop_reactor()

    def _stop_reactor(self) -> None:
        if not self._interrupted:
            self._interrupted = True
            self._reactor.stop()
