"""The parts of a host, and the order in which they start and stop."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

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
from relaymail.process import EX_CONFIG, EX_UNAVAILABLE, CrashPoint, StartError, threads
from relaymail.readiness import wait_for_database
from relaymail.settings import Settings
from relaymail.smtp import reply
from relaymail.smtp.content import Content
from relaymail.smtp.listener import why_not
from relaymail.smtp.policy import ListenerName
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.reply import Reply
from relaymail.smtp.surroundings import Surroundings
from relaymail.smtp.tls import ServerTLS, development_certificate
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from relaymail.store.embedded import EmbeddedPostgres
from relaymail.store.messages import MessageStore
from relaymail.store.retention import Retention
from relaymail.store.scram import ScramKeys
from relaymail.telemetry import configure

log = Logger()

POOL_SIZE = 4
"""Connections to the database, unless the connection string says otherwise."""

Stop = Callable[[], Awaitable[None]]


class Parts:
    """Everything that runs behind the listening sockets.

    A part that starts puts its stop on a list; :meth:`stop` works the list off backwards.

    :param tls: the operator's certificate; ``None``: there is none.
    :param development: whether a self-signed certificate will do.
    """

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        tls: ServerTLS | None,
        reactor: Any,
        *,
        demo_run: bool,
        development: bool,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._tls = tls
        self._reactor = reactor
        self._demo_run = demo_run
        self._development = development
        self._run = threads(reactor)
        self._crash = CrashPoint(settings.debug.crash_point, reactor)
        self._clients = assembly.client_limits(settings, reactor)
        self._probes = ProbeRegistry()
        self._stops: list[tuple[str, Stop]] = []
        self._preparing: Deferred[None] = Deferred()
        self._ready = False
        self._demo_key = ""
        self._certificate: Path | None = None

    # Start

    async def start(self, failed: Callable[[Any], None]) -> None:
        """Start everything, in order. What a part needs has started before it.

        :param failed: called with the failure of what goes on when this has returned.
        :raises StartError: and the errors of parts; what has started by then is stopped by :meth:`stop`.
        """
        self._start_telemetry()
        self._spool = await self._run(self._make_folders)
        self._start_tls()
        await self._start_database()
        self._start_store()
        self._start_workers()
        hosting = self._start_hosting()
        monitor, activity = self._start_health()
        self._preparing = Deferred.fromCoroutine(self._prepare())
        self._preparing.addErrback(failed)
        self._stops.append(("preparation", _awaited(self._preparing.cancel)))
        if self._settings.data.embedded_postgres:
            # Ours is there in a moment; clients wait for the greeting rather than be sent away
            await self._preparing
        await self._listeners.open(lambda name: self._surroundings(name, hosting), self._not_ready)
        self._stops.append(("listeners", self._listeners.stop))
        monitor.start()
        self._stops.append(("health checks", _awaited(monitor.stop)))
        activity.start()
        self._stops.append(("activity", _awaited(activity.stop)))
        self._preparing.addCallback(lambda _: self._settled(monitor, activity))
        # First of all when we stop: what is on its way to other hosts ends while the sessions do
        self._stops.append(("claims of outbound mail", self._outbound.begin_stop))
        log.info("relaymail is up: {listeners}", listeners=", ".join(self._listeners.names))
        if self._demo_run:
            await self._preparing
            # Not by way of the log, which has taken over sys.stdout: these lines are for pasting
            banner = demo.banner(self._settings, self._demo_key, self._certificate)
            print(banner, file=sys.__stdout__, flush=True)

    def _start_telemetry(self) -> None:
        otel = self._settings.otel
        telemetry = configure(otel.endpoint, trace_ratio=otel.traced_percent / 100)
        telemetry.start(self._reactor)
        self._stops.append(("telemetry", lambda: telemetry.stop(self._reactor)))
        self._metrics, self._tracer = telemetry.metrics, telemetry.tracer

    def _make_folders(self) -> Path:
        """The data folder and the spool in it, for the owner only."""
        spool = self._settings.data.directory / "spool"
        try:
            self._settings.data.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool.mkdir(mode=0o700, exist_ok=True)
            if not os.access(spool, os.W_OK | os.X_OK):
                raise PermissionError(0, "not writable")
        except OSError as error:
            blocked = isinstance(error, FileExistsError | NotADirectoryError)
            why = "a file is in its place" if blocked else error.strerror
            raise StartError(
                f"Data:Directory: cannot use {spool}: {why}; name a folder that this user can write to",
                EX_CONFIG,
            ) from error
        return spool

    def _start_tls(self) -> None:
        if self._tls is None and self._development:
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

    async def _start_database(self) -> None:
        connection = self._settings.connection
        self._database = Database(
            await self._parameters(),
            reactor=self._reactor,
            size=(connection.pool_size if connection else None) or POOL_SIZE,
            observe=self._metrics.database_called,
            waited=self._metrics.pool_waited,
        )
        self._database.start()
        self._stops.append(("database", self._database.stop))

    async def _parameters(self) -> dict[str, str]:
        """Of the database, which is started where it is ours."""
        if not self._settings.data.embedded_postgres:
            connection = self._settings.connection
            assert connection is not None
            log.info(
                "The database of ConnectionStrings:DefaultConnection: {where}", where=connection.redacted()
            )
            return connection.parameters()
        postgres = EmbeddedPostgres(
            self._settings.data.directory,
            reactor=self._reactor,
            progress=lambda text: log.info("{text}", text=text),
        )
        parameters = await postgres.start()
        self._stops.append(("embedded PostgreSQL", postgres.stop))
        return parameters

    def _start_store(self) -> None:
        """What sessions ask, and where they put messages."""
        database, reactor = self._database, self._reactor
        self._store = MessageStore(
            database, reactor=reactor, run=self._run, stored=self._metrics.batch_stored, crash=self._crash
        )
        self._accounts = Accounts(database, clock=reactor)
        salt = self._settings.security.authentication_salt
        self._authenticator = Authenticator(
            self._accounts, salt=salt.reveal().encode() if salt else None, reactor=reactor
        )
        self._authenticator.listen(database)
        self._stops.append(("authenticator", self._authenticator.stop))
        self._keys = ScramKeys(database)
        self._scram = ScramOffer(self._keys, reactor=reactor)
        self._stops.append(("SCRAM", self._scram.stop))
        self._room = Room(self._spool, lambda: self._store.longest_wait, reactor=reactor, run=self._run)
        self._room.start()
        self._stops.append(("room", self._room.stop))

    def _start_workers(self) -> None:
        """What goes on with what is stored; most of it begins when the database is there."""
        settings, database, reactor = self._settings, self._database, self._reactor
        self._notifier = Notifier(
            database,
            base_url=settings.api.base_url,
            api_key=settings.internal.api_key,
            reactor=reactor,
            crash=self._crash,
            on_result=self._metrics.notified,
            tracer=self._tracer,
        )
        self._stops.append(("notifier", self._notifier.stop))
        ages = settings.retention
        retention = Retention(
            database,
            events=ages.events,
            outbox=ages.outbox,
            queue=ages.queue,
            messages=ages.messages,
            reactor=reactor,
        )
        retention.start()
        self._stops.append(("retention", retention.stop))
        self._releaser = Releaser(
            database,
            self._accounts,
            reactor=reactor,
            new_content=self._new_content,
            run=self._run,
            now=lambda: datetime.now(UTC),
            released=self._notifier.hint,
        )
        self._stops.append(("release of held messages", self._releaser.stop))
        self._outbound = Outbound(
            settings,
            database,
            self._accounts,
            self._store,
            self._metrics,
            resolver=assembly.resolver(settings, reactor),
            reactor=reactor,
            run=self._run,
            stored=self._notifier.hint,
            crash=self._crash,
        )
        self._stops.append(("outbound mail", self._outbound.stop))

    def _start_hosting(self) -> Hosting:
        """What all sessions share; what is counted of clients is shared with other hosts and the operator."""
        hosting = assembly.hosting(
            self._settings,
            self._accounts,
            self._authenticator,
            self._keys,
            self._store,
            self._metrics,
            reactor=self._reactor,
            run=self._run,
            room=self._room.refusal,
            stored=self._notifier.hint,
            remote=self._outbound.recipients,
        )
        failures = SharedFailures(hosting.limiter, self._database)
        failures.start()
        self._stops.append(("news of failed logins", failures.stop))
        name = f"{socket.gethostname()}:{os.getpid()}"
        sessions = self._listeners.sessions
        LimitDesk(self._database, name, self._clients, hosting.limiter, lambda: len(sessions)).start()
        return hosting

    def _start_health(self) -> tuple[HealthMonitor, Activity]:
        """Open the health port; the checks begin by themselves once there is something to look at."""
        settings, metrics = self._settings, self._metrics
        monitor = assembly.health_monitor(
            settings,
            self._database,
            metrics,
            submission=self._listeners.submission,
            has_submission="submission" in self._listeners.names,
            tls=lambda: self._tls,
            probes=self._probes,
            reactor=self._reactor,
        )
        activity = assembly.activity(settings, self._database, metrics, reactor=self._reactor)
        desk = assembly.status_desk(settings, monitor, activity, metrics, reactor=self._reactor)
        url = settings.health_check.url
        server = HealthServer(monitor, url.host, url.port, reactor=self._reactor, desk=desk, metrics=metrics)
        try:
            server.start()
        except CannotListenError as error:
            why = f"HealthCheck:Url: cannot listen on {url}: {why_not(error.socketError)}"
            raise StartError(why, EX_UNAVAILABLE) from error
        self._stops.append(("health port", server.stop))
        assembly.watch(metrics, self._database, lambda: self._tls)
        return monitor, activity

    async def _prepare(self) -> None:
        """Wait until mail can be stored; then what goes by what is stored may begin."""
        embedded = self._settings.data.embedded_postgres
        await wait_for_database(self._database, standalone=embedded, reactor=self._reactor)
        if self._demo_run:
            self._demo_key = await demo.demo_key(self._database, self._settings.data.directory)
        self._ready = True
        if self._settings.smtp.scram:
            self._scram.start()
        self._notifier.start()
        self._releaser.start()
        await self._outbound.start()

    def _settled(self, monitor: HealthMonitor, activity: Activity) -> None:
        """Preparing has ended, listeners are open: if all went well, looks of before are out of date."""
        if self._ready:
            monitor.settled()
            activity.settled()

    # What sessions get

    def _surroundings(self, listener: ListenerName, hosting: Hosting) -> Surroundings:
        session = new_session(listener, self._tracer)
        return Surroundings(
            policy=assembly.listener_policy(self._settings, listener, has_certificate=self._tls is not None),
            reactor=self._reactor,
            new_session=lambda peer: session(hosting, peer),
            new_session_id=short_id,
            new_content=self._new_content,
            tls=self._tls,
            observer=self._metrics,
            probes=self._probes,
            clients=self._clients["mx" if listener == "mx" else "submission"],
            scram=self._scram.offered,
            after_stored=self._crash.after_reply,
        )

    def _new_content(self) -> Content:
        return Content(self._spool, self._run)

    def _not_ready(self) -> Reply | None:
        return None if self._ready and self._database.available else reply.NOT_READY

    # Stop

    async def stop(self) -> None:
        """Stop what has started, last first: listeners and sessions, then what stores, then the database."""
        while self._stops:
            name, stop = self._stops.pop()
            try:
                await stop()
            except Exception:
                log.failure("Stopping {name} failed", name=name)


def _awaited(stop: Callable[[], None]) -> Stop:
    async def stopped() -> None:
        stop()

    return stopped
