"""The host: its parts, and the order in which they start and stop."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure

from relaymail import assembly, demo
from relaymail.health import Activity, HealthMonitor, HealthServer
from relaymail.hosting.authenticator import Authenticator
from relaymail.hosting.limit_desk import LimitDesk
from relaymail.hosting.release import Releaser
from relaymail.hosting.room import Room
from relaymail.hosting.scram import ScramOffer
from relaymail.hosting.session import Hosting
from relaymail.hosting.shared_failures import SharedFailures
from relaymail.hosting.traced import new_session
from relaymail.listeners import Listeners
from relaymail.message.ids import short_id
from relaymail.notify.notifier import Notifier
from relaymail.outbound import Outbound
from relaymail.process import (
    EX_CONFIG,
    EX_UNAVAILABLE,
    StartError,
    raise_file_limit,
    refuse,
    tune_garbage_collection,
)
from relaymail.readiness import wait_for_database
from relaymail.settings import Loaded
from relaymail.smtp import reply
from relaymail.smtp.content import Content
from relaymail.smtp.listener import ListenError
from relaymail.smtp.policy import ListenerName
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.reply import Reply
from relaymail.smtp.surroundings import Surroundings
from relaymail.smtp.tls import CertificateError, ServerTLS, development_certificate
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from relaymail.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from relaymail.store.messages import MessageStore
from relaymail.store.retention import Retention
from relaymail.store.scram import ScramKeys
from relaymail.telemetry import Metrics, TelemetryError, Tracer, bridge_standard_logging, configure, observer

log = Logger()

POOL_SIZE = 4
"""Connections to the database, unless the connection string says otherwise."""
REPLY_LEAVES = 0.05
"""Seconds after which a reply has left the process (for the crash point behind it)."""


class Host(Service):
    """The whole host. What has started is stopped in reverse order."""

    name = "relaymail"

    def __init__(self, loaded: Loaded, reactor: Any, *, demo_run: bool, log_stream: TextIO | None) -> None:
        self._settings = loaded.settings
        self._warnings = loaded.warnings
        self._reactor = reactor
        self._demo_run = demo_run
        self._log_stream = log_stream
        self._stops: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._starting: Deferred[None] | None = None
        self._preparing: Deferred[None] | None = None
        self._ready = False
        self._demo_key = ""
        self._interrupted = False
        self._clients = assembly.client_limits(self._settings, reactor)
        self._probes = ProbeRegistry()
        self._tls: ServerTLS | None = None
        self._certificate: Path | None = None
        self._database: Database | None = None
        self._tracer: Tracer | None = None

    # Logging

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
        smtp = self._settings.smtp
        try:
            if smtp.certificate_path is not None:
                password = smtp.certificate_password.reveal() if smtp.certificate_password else None
                self._tls = ServerTLS(smtp.certificate_path, smtp.certificate_key_path, password)
            self._listeners = Listeners(
                self._settings, self._tls is not None or self._is_development(), self._reactor
            )
            self._listeners.bind()
        except CertificateError as error:
            refuse(f"Smtp:CertificatePath: {error}", EX_CONFIG)
        except ListenError as error:
            refuse(str(error), EX_UNAVAILABLE)

    def _is_development(self) -> bool:
        """Whether a self-signed certificate will do."""
        return self._demo_run or self._settings.data.embedded_postgres

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
        otel = self._settings.otel
        telemetry = configure(otel.endpoint, trace_ratio=otel.traced_percent / 100)
        telemetry.start(self._reactor)
        self._stops.append(("telemetry", lambda: telemetry.stop(self._reactor)))
        spool = await self._run(self._make_folders)
        self._start_tls()
        parameters = await self._start_postgres()
        metrics, self._tracer = telemetry.metrics, telemetry.tracer
        database = Database(
            parameters,
            reactor=self._reactor,
            size=self._pool_size(),
            observe=metrics.database_called,
            waited=metrics.pool_waited,
        )
        database.start()
        self._database = database
        self._stops.append(("database", database.stop))
        store = MessageStore(
            database, reactor=self._reactor, run=self._run, stored=metrics.batch_stored, crash=self._crash
        )
        accounts = Accounts(database, clock=self._reactor)
        authenticator = self._start_authenticator(accounts, database)
        keys = ScramKeys(database)
        self._scram = ScramOffer(keys, reactor=self._reactor)
        self._stops.append(("SCRAM", self._scram.stop))
        notifier = self._start_notifier(database, metrics)
        self._start_retention(database)
        room = Room(spool, lambda: store.longest_wait, reactor=self._reactor, run=self._run)
        room.start()
        self._stops.append(("room", room.stop))
        releaser = self._start_releaser(database, accounts, spool, notifier)
        outbound = self._start_outbound(database, accounts, store, metrics, notifier)
        hosting = assembly.hosting(
            self._settings,
            accounts,
            authenticator,
            keys,
            store,
            metrics,
            reactor=self._reactor,
            run=self._run,
            room=room.refusal,
            stored=notifier.hint,
            remote=outbound.recipients,
        )
        self._start_limits(database, hosting)
        monitor, activity = self._start_health(database, metrics)
        self._preparing = Deferred.fromCoroutine(self._prepare(database, notifier, releaser, outbound))
        self._preparing.addErrback(self._failed_to_start)
        self._stops.append(("preparation", self._stop_preparing))
        if self._settings.data.embedded_postgres:
            # Ours is there in a moment; clients wait for the greeting rather than be sent away
            await self._preparing
        await self._listeners.open(
            lambda listener: self._surroundings(listener, hosting, metrics, spool), self._not_ready
        )
        self._stops.append(("listeners", self._listeners.stop))
        monitor.start()
        self._stops.append(("health checks", _awaited(monitor.stop)))
        activity.start()
        self._stops.append(("activity", _awaited(activity.stop)))
        # First of all when we stop: what is on its way to other hosts ends while the sessions do
        self._stops.append(("claims of outbound mail", outbound.begin_stop))
        tune_garbage_collection()
        log.info("relaymail is up: {listeners}", listeners=", ".join(self._listeners.names))
        if self._demo_run:
            await self._preparing
            # Not by way of the log, which has taken over sys.stdout: these lines are for pasting
            print(
                demo.banner(self._settings, self._demo_key, self._certificate),
                file=sys.__stdout__,
                flush=True,
            )

    def _make_folders(self) -> Path:
        """The data folder and the spool in it, for the owner only."""
        spool = self._settings.data.directory / "spool"
        try:
            self._settings.data.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool.mkdir(mode=0o700, exist_ok=True)
            if not os.access(spool, os.W_OK | os.X_OK):
                raise PermissionError(0, "not writable")
        except OSError as error:
            raise StartError(
                f"Data:Directory: cannot use {spool}: {error.strerror}; give it to this user or name"
                " another folder",
                EX_CONFIG,
            ) from error
        return spool

    def _start_tls(self) -> None:
        if self._tls is None and self._is_development():
            names = [self._settings.smtp.server_name, "localhost", "127.0.0.1", "::1"]
            self._certificate = development_certificate(self._settings.data.directory.resolve(), names)
            self._tls = ServerTLS(self._certificate)
            log.warn("Using a self-signed development certificate: {path}", path=self._certificate)
        if self._tls is None:
            log.warn(
                "Smtp:CertificatePath is not set: no STARTTLS, and on submission no AUTH, since passwords"
                " would travel in clear; SMTPS stays closed"
            )
            return
        self._tls.start(self._reactor)
        self._stops.append(("certificate watch", _awaited(self._tls.stop)))

    async def _start_postgres(self) -> dict[str, str]:
        if not self._settings.data.embedded_postgres:
            connection = self._settings.connection
            assert connection is not None
            return connection.parameters()
        postgres = EmbeddedPostgres(
            self._settings.data.directory,
            reactor=self._reactor,
            progress=lambda text: log.info("{text}", text=text),
        )
        parameters = await postgres.start()
        self._stops.append(("embedded PostgreSQL", postgres.stop))
        return parameters

    def _pool_size(self) -> int:
        connection = self._settings.connection
        return (connection.pool_size if connection else None) or POOL_SIZE

    def _start_authenticator(self, accounts: Accounts, database: Database) -> Authenticator:
        salt = self._settings.security.authentication_salt
        authenticator = Authenticator(
            accounts, salt=salt.reveal().encode() if salt else None, reactor=self._reactor
        )
        authenticator.listen(database)
        self._stops.append(("authenticator", authenticator.stop))
        return authenticator

    def _start_notifier(self, database: Database, metrics: Metrics) -> Notifier:
        notifier = Notifier(
            database,
            base_url=self._settings.api.base_url,
            api_key=self._settings.internal.api_key,
            reactor=self._reactor,
            crash=self._crash,
            on_result=metrics.notified,
            tracer=self._tracer,
        )
        self._stops.append(("notifier", notifier.stop))
        return notifier

    def _start_retention(self, database: Database) -> None:
        ages = self._settings.retention
        retention = Retention(
            database,
            events=ages.events,
            outbox=ages.outbox,
            queue=ages.queue,
            messages=ages.messages,
            reactor=self._reactor,
        )
        retention.start()
        self._stops.append(("retention", retention.stop))

    def _start_releaser(
        self, database: Database, accounts: Accounts, spool: Path, notifier: Notifier
    ) -> Releaser:
        releaser = Releaser(
            database,
            accounts,
            reactor=self._reactor,
            new_content=lambda: Content(spool, self._run),
            run=self._run,
            now=lambda: datetime.now(UTC),
            released=notifier.hint,
        )
        self._stops.append(("release of held messages", releaser.stop))
        return releaser

    def _start_outbound(
        self,
        database: Database,
        accounts: Accounts,
        store: MessageStore,
        metrics: Metrics,
        notifier: Notifier,
    ) -> Outbound:
        outbound = Outbound(
            self._settings,
            database,
            accounts,
            store,
            metrics,
            resolver=assembly.resolver(self._settings, self._reactor),
            reactor=self._reactor,
            run=self._run,
            stored=notifier.hint,
            crash=self._crash,
        )
        self._stops.append(("outbound mail", outbound.stop))
        return outbound

    def _start_limits(self, database: Database, hosting: Hosting) -> None:
        """Share what is counted with the other hosts, and with the operator."""
        failures = SharedFailures(hosting.limiter, database)
        failures.start()
        self._stops.append(("news of failed logins", failures.stop))
        name = f"{socket.gethostname()}:{os.getpid()}"
        sessions = self._listeners.sessions
        LimitDesk(database, name, self._clients, hosting.limiter, lambda: len(sessions)).start()

    def _start_health(self, database: Database, metrics: Metrics) -> tuple[HealthMonitor, Activity]:
        """Open the health port; the checks begin by themselves once there is something to look at."""
        settings = self._settings
        monitor = assembly.health_monitor(
            settings,
            database,
            metrics,
            submission=self._listeners.submission,
            has_submission="submission" in self._listeners.names,
            tls=lambda: self._tls,
            probes=self._probes,
            reactor=self._reactor,
        )
        activity = assembly.activity(settings, database, metrics, reactor=self._reactor)
        desk = assembly.status_desk(settings, monitor, activity, metrics, reactor=self._reactor)
        url = settings.health_check.url
        server = HealthServer(monitor, url.host, url.port, reactor=self._reactor, desk=desk, metrics=metrics)
        try:
            server.start()
        except CannotListenError as error:
            why = f"HealthCheck:Url: cannot listen on {url}: {error.socketError}"
            raise StartError(why, EX_UNAVAILABLE) from error
        self._stops.append(("health port", server.stop))
        assembly.watch(metrics, database, lambda: self._tls)
        return monitor, activity

    async def _prepare(
        self, database: Database, notifier: Notifier, releaser: Releaser, outbound: Outbound
    ) -> None:
        """Wait until mail can be stored; then what goes by what is stored may begin."""
        await wait_for_database(
            database, standalone=self._settings.data.embedded_postgres, reactor=self._reactor
        )
        if self._demo_run:
            self._demo_key = await demo.demo_key(database, self._settings.data.directory)
        self._ready = True
        if self._settings.smtp.scram:
            self._scram.start()
        notifier.start()
        releaser.start()
        await outbound.start()

    def _surroundings(
        self, listener: ListenerName, hosting: Hosting, metrics: Metrics, spool: Path
    ) -> Surroundings:
        session = new_session(listener, self._tracer)
        return Surroundings(
            policy=assembly.listener_policy(self._settings, listener, has_certificate=self._tls is not None),
            reactor=self._reactor,
            new_session=lambda peer: session(hosting, peer),
            new_session_id=short_id,
            new_content=lambda: Content(spool, self._run),
            tls=self._tls,
            observer=metrics,
            probes=self._probes,
            clients=self._clients["mx" if listener == "mx" else "submission"],
            scram=self._scram.offered,
            after_stored=self._crash_after_reply,
        )

    def _not_ready(self) -> Reply | None:
        return None if self._ready and self._database and self._database.available else reply.NOT_READY

    # Stop

    def stopService(self) -> Deferred[None]:
        """Stop what has started, last first: listeners and sessions, then what stores, then the database."""
        Service.stopService(self)
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        log.info("Stopping")
        if self._starting is not None:
            self._starting.cancel()
            # What had begun is undone first: a program that makes the database must not outlive us
            await DeferredList([self._starting])
        while self._stops:
            name, stop = self._stops.pop()
            try:
                await stop()
            except Exception:
                log.failure("Stopping {name} failed", name=name)
        self._listeners.close()
        log.info("Stopped")

    async def _stop_preparing(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()

    def _failed_to_start(self, failure: Failure) -> None:
        """End the process with a sentence: nobody reads a traceback about a port or a disk."""
        if failure.check(CancelledError):
            return
        code = 1
        if isinstance(
            failure.value, (StartError, EmbeddedPostgresError, ListenError, TelemetryError, CertificateError)
        ):
            code = getattr(failure.value, "code", EX_UNAVAILABLE)
            log.critical("Cannot start: {why}", why=str(failure.value))
        else:
            log.failure("Cannot start", failure)
        print(f"relaymail: cannot start: {failure.getErrorMessage()}", file=sys.__stderr__, flush=True)
        # twistd has no way to end with a code of ours once the reactor runs
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, code)
        self._reactor.callWhenRunning(self._stop_reactor)

    def _stop_reactor(self) -> None:
        if not self._interrupted:
            self._interrupted = True
            self._reactor.stop()

    # Signals and threads

    def _handle_signals(self) -> None:
        """The first SIGINT or SIGTERM drains; a second one does not wait for the sessions any longer."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._interrupt))

    def _interrupt(self) -> None:
        if self._interrupted:
            self._listeners.sessions.cut()
        else:
            self._stop_reactor()

    def _run(self, function: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function, *arguments)

    def _crash(self, point: str) -> None:
        """For tests: die here, without a chance to tidy up."""
        if point == self._settings.debug.crash_point:
            os.kill(os.getpid(), signal.SIGKILL)

    def _crash_after_reply(self) -> None:
        if self._settings.debug.crash_point == "after-reply":
            self._reactor.callLater(REPLY_LEAVES, self._crash, "after-reply")


def _awaited(stop: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def stopped() -> None:
        stop()

    return stopped
