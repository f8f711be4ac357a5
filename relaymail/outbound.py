"""Outbound mail: the parts that bring what is queued to the next hosts, joined."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from twisted.logger import Logger

from relaymail.delivery import retry
from relaymail.delivery.addresses import OwnHost
from relaymail.delivery.attempt import Tools
from relaymail.delivery.bounces import Bounces, Reporting
from relaymail.delivery.connections import Connections
from relaymail.delivery.contents import Contents
from relaymail.delivery.couriers import Couriers
from relaymail.delivery.destinations import MOST, Destinations
from relaymail.delivery.known import Clock, DestinationsSet
from relaymail.delivery.ledger import Ledger
from relaymail.delivery.mta_sts import MTASTS
from relaymail.delivery.policy_fetch import PolicyFetcher
from relaymail.delivery.report_rounds import ReportRounds
from relaymail.delivery.route import NextHost, Relay, Router
from relaymail.delivery.runner import LAST_WRITE, Runner
from relaymail.delivery.signing import Signer
from relaymail.delivery.tls_policy import HostPolicy, TLSPolicies
from relaymail.delivery.verdicts import Verdicts
from relaymail.delivery.ways import Ways
from relaymail.dns import Resolver
from relaymail.hosting.remote import RemoteRecipients
from relaymail.settings import Settings, own_name, why_off
from relaymail.smtp import client
from relaymail.smtp.client import ClientConnection, ClientTimeouts, Credentials, TLSRequirement, TrustRoots
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from relaymail.store.dkim import DkimKeys
from relaymail.store.messages import MessageStore
from relaymail.store.queue import Queue
from relaymail.store.queue_hint import QueueHint
from relaymail.store.suppression import Suppressions
from relaymail.telemetry import Metrics

log = Logger()

DOT_LEAVES: Final = 0.05
"""Seconds after which a final dot has left the process (for the crash point behind it)."""


class Outbound:
    """Takes mail for elsewhere, where that is on, and sends it. Reports are made in any case.

    :param stored: called when a report was stored for a local user.
    :param crash: called with the names of the points at which tests kill the process.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        accounts: Accounts,
        store: MessageStore,
        metrics: Metrics,
        *,
        resolver: Resolver,
        reactor: Any,
        run: Callable[..., Any],
        stored: Callable[[], None],
        crash: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._database = database
        self._accounts = accounts
        self._store = store
        self._metrics = metrics
        self._resolver = resolver
        self._reactor = reactor
        self._run = run
        self._stored = stored
        self._crash_now = crash
        self._hint = QueueHint(database, reactor=reactor)
        self._off = why_off(settings)
        mail = settings.outbound_mail
        self._schedule = retry.schedule(mail.retry_delays, mail.max_retries, mail.retry_base_delay_seconds)
        self._bounces = self._make_bounces()
        self._rounds = ReportRounds(
            self._bounces.settle_debts, reactor=reactor, every=mail.queue_polling_interval_seconds
        )
        self._runner: Runner | None = None
        self._connections: Connections | None = None
        self._mta_sts: MTASTS | None = None
        self.recipients: RemoteRecipients | None = None
        """Decides about recipients elsewhere; ``None``: outbound is off."""
        if self._off is None:
            suppressions = Suppressions(database, clock=reactor)
            self.recipients = RemoteRecipients(suppressions.find, self.queued)

    def queued(self) -> None:
        """Something was queued and committed."""
        self._hint()
        if self._runner is not None:
            self._runner.hint()

    async def start(self) -> None:
        """Begin to send, and to make reports; the database and its tables are there."""
        self._rounds.start()
        if self._off is not None:
            log.warn("Outbound mail is off, recipients elsewhere are refused: {why}", why=self._off)
            return
        self._runner = self._make_runner(await self._trust_roots())
        self._runner.start()

    async def begin_stop(self) -> None:
        """Claim no more, and begin no more reports; what is behind its final dot goes on."""
        self._bounces.stop()
        if self._runner is not None:
            self._runner.begin_stop()

    async def stop(self) -> None:
        """End, with what is behind its final dot written down."""
        self._bounces.stop()
        await self._rounds.stop(LAST_WRITE)
        if self._mta_sts is not None:
            self._mta_sts.stop()
        if self._runner is not None:
            await self._runner.stop()
        if self._connections is not None:
            self._connections.close()
        self._hint.stop()

    # The parts

    async def _trust_roots(self) -> TrustRoots:
        try:
            roots: TrustRoots = await self._run(TrustRoots.system)
        except OSError as error:
            log.error(
                "No certificate authorities are installed: no host can be verified where it has to be: {why}",
                why=str(error),
            )
            return TrustRoots(())
        return roots

    def _make_runner(self, roots: TrustRoots) -> Runner:
        settings, reactor, database = self._settings.outbound_mail, self._reactor, self._database
        schedule = self._schedule
        clock = Clock(reactor.seconds)
        queue = Queue(
            database, reactor=reactor, owner=f"{socket.gethostname()}:{os.getpid()}", crash=self._crash
        )
        self._connections = self._make_connections(roots)
        contents, verdicts = Contents(database), Verdicts(schedule, clock.age)
        tools = Tools(
            queue=queue,
            contents=contents,
            connections=self._connections,
            signer=self._make_signer(),
            verdicts=verdicts,
            observer=self._metrics,
            run=self._run,
            seconds=reactor.seconds,
            crash=self._crash,
        )
        # All of it goes to the smarthost, whose owner has set how much it may be
        most = MOST if settings.relay_host is None else settings.max_concurrency
        destinations = Destinations(settings.max_concurrency, most=most)
        known = DestinationsSet(destinations)
        ledger = Ledger(queue, self._metrics, clock=reactor, settled=lambda owes: runner.settled(owes))
        couriers = Couriers(
            tools,
            ledger,
            Ways(self._make_router(), clock=reactor, settings=lambda: known.current),
            destinations=destinations,
            schedule=schedule,
            clock=reactor,
            moved=lambda: runner.wake(),
        )
        runner = Runner(
            database,
            queue,
            couriers,
            ledger,
            contents,
            verdicts,
            schedule=schedule,
            clock=clock,
            settings=known,
            owed=self._rounds.hint,
            reactor=reactor,
            poll=settings.queue_polling_interval_seconds,
            concurrency=settings.max_concurrency,
        )
        return runner

    def _make_signer(self) -> Signer:
        keys = DkimKeys(self._database, clock=self._reactor, run=self._run)
        keys.listen()
        return Signer(keys, run=self._run, now=lambda: datetime.now(UTC))

    def _make_bounces(self) -> Bounces:
        smtp = self._settings.smtp
        name = own_name(self._settings)
        reporting = Reporting(
            server_name=name,
            author=f"postmaster@{name}",
            hosted_domains=frozenset(smtp.mx.hosted_domains),
            life=self._schedule.longest(null_sender=False),
            now=lambda: datetime.now(UTC),
            sends=self._off is None,
        )
        return Bounces(
            self._database,
            self._accounts,
            self._store,
            reporting,
            run=self._run,
            stored=self._stored,
            queued=self.queued,
            observe=self._reported,
        )

    def _reported(self, action: str, outcome: str) -> None:
        # What nobody wants was neither made nor dropped
        if outcome != "unwanted":
            self._metrics.reported("dropped" if outcome == "dropped" else action)

    def _relay(self) -> Relay | None:
        settings = self._settings.outbound_mail
        return None if settings.relay_host is None else Relay(settings.relay_host, settings.relay_port)

    def _own_names(self) -> set[str]:
        """Our names, where who connects to a host of that name at the next hosts' port reaches us."""
        smtp, outbound = self._settings.smtp, self._settings.outbound_mail
        listens = smtp.enabled and smtp.mx.enabled and smtp.mx.port == outbound.port
        return {smtp.server_name.lower(), own_name(self._settings).lower()} if listens else set()

    def _make_router(self) -> Router:
        smtp, outbound = self._settings.smtp, self._settings.outbound_mail
        mx = smtp.enabled and smtp.mx.enabled and smtp.mx.port
        listening = [(address, smtp.mx.port) for address in smtp.bind_addresses] if mx else []
        own = OwnHost(self._own_names(), listening)
        return Router(self._resolver, own=own, port=outbound.port, relay=self._relay())

    def _make_connections(self, roots: TrustRoots) -> Connections:
        fetcher = PolicyFetcher(self._resolver, reactor=self._reactor)
        self._mta_sts = MTASTS(
            self._resolver,
            self._database,
            fetcher.fetch,
            clock=self._reactor,
            count=self._metrics.mta_sts_fetched,
        )
        policies = TLSPolicies(
            self._resolver,
            mta_sts=self._mta_sts,
            roots=roots,
            relay_use_tls=self._settings.outbound_mail.relay_use_tls,
            count=self._metrics.tls_policy_found,
        )
        return Connections(
            self._make_connect(),
            policies,
            reactor=self._reactor,
            observer=self._metrics,
            own_names=self._own_names(),
        )

    def _make_connect(self) -> Callable[..., Any]:
        settings, helo = self._settings.outbound_mail, own_name(self._settings)
        seconds = settings.smtp_timeout_seconds
        timeouts = ClientTimeouts() if seconds is None else ClientTimeouts.uniform(seconds)
        relay = self._relay()
        login = None
        if settings.relay_username is not None and settings.relay_password is not None:
            login = Credentials(settings.relay_username, settings.relay_password.reveal())

        async def connect(
            host: NextHost, address: str, policy: HostPolicy, requirement: TLSRequirement
        ) -> ClientConnection:
            ours = policy.source == "relay" and relay is not None and host.port == relay.port
            ours = ours and relay is not None and host.name.strip("[]") == relay.host.lower().strip("[]")
            return await client.connect(
                self._reactor,
                address,
                host.port,
                host=policy.server_name or address,
                helo=helo,
                tls=requirement,
                timeouts=timeouts,
                # The password is the smarthost's and nobody else's
                credentials=login if ours else None,
                clear_credentials=not settings.relay_use_tls,
            )

        return connect

    # Tests

    def _crash(self, point: str) -> None:
        if point != "delivery-after-dot":
            self._crash_now("delivery-before-settle" if point == "before-settle" else point)
        elif self._settings.debug.crash_point == point:
            self._reactor.callLater(DOT_LEAVES, self._crash_now, point)
