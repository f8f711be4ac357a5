"""Settings into the objects that the service is made of."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from relaymail.dns import Resolver
from relaymail.health import Activity, HealthMonitor, StatusDesk, outbox_depth, queue_depth
from relaymail.health.checks import (
    certificate_check,
    connection_pool_check,
    database_check,
    delivery_queue_check,
    disk_space_check,
    dns_mx_check,
    memory_check,
    smtp_check,
)
from relaymail.health.monitor import GRACE
from relaymail.hosting.authenticator import Authenticator
from relaymail.hosting.login_limiter import FailedLoginLimiter
from relaymail.hosting.remote import RemoteRecipients
from relaymail.hosting.scram import ScramLogins
from relaymail.hosting.session import Hosting
from relaymail.settings import Settings, why_off
from relaymail.smtp.limits import Allowance, ClientLimits
from relaymail.smtp.policy import Limits, ListenerName, Policy, Timeouts
from relaymail.smtp.probe import ProbeRegistry
from relaymail.smtp.reply import Reply
from relaymail.smtp.scram_exchange import SCRAM, SCRAM_PLUS
from relaymail.smtp.tls import ServerTLS
from relaymail.store.accounts import Accounts
from relaymail.store.database import Database
from relaymail.store.messages import MessageStore
from relaymail.store.scram import ScramKeys
from relaymail.telemetry import Metrics


def listener_policy(settings: Settings, listener: ListenerName, *, has_certificate: bool) -> Policy:
    """How a listener talks."""
    smtp = settings.smtp
    mx = listener == "mx"
    return Policy(
        listener=listener,
        server_name=smtp.server_name,
        starttls=listener != "submissions" and has_certificate,
        implicit_tls=listener == "submissions",
        authentication=not mx and has_certificate,
        mechanisms=("PLAIN", "LOGIN", *((SCRAM, SCRAM_PLUS) if smtp.scram else ())),
        authentication_required=not mx and smtp.require_authentication,
        strict_newlines=mx,
        limits=_limits(settings, mx=mx),
        timeouts=_timeouts(settings),
        exempt_networks=smtp.limits.exempt_networks,
        proxy_networks=smtp.proxy_networks,
        xclient_networks=smtp.xclient_networks,
    )


def _limits(settings: Settings, *, mx: bool) -> Limits:
    limits = settings.smtp.limits
    return Limits(
        message=settings.smtp.max_message_size_bytes,
        text_line=_limit(limits.line_length),
        recipients=_limit(limits.recipients.mx if mx else limits.recipients.submission),
        messages=_limit(limits.messages_per_session),
        errors=_limit(limits.errors),
        junk_commands=_limit(limits.junk_commands),
        connections=_limit(limits.connections),
    )


def client_limits(settings: Settings, reactor: Any) -> dict[str, ClientLimits]:
    """What is counted of each client: on ``mx``, and on the ``submission`` listeners together."""
    limits = settings.smtp.limits
    mx = Allowance(
        _limit(limits.connections_per_client.mx),
        _limit(limits.connections_per_minute),
        _limit(limits.messages_per_minute),
        _limit(limits.recipients_per_minute),
    )
    submission = Allowance(_limit(limits.connections_per_client.submission))
    return {
        "mx": ClientLimits(reactor.seconds, mx, limits.exempt_networks),
        "submission": ClientLimits(reactor.seconds, submission, limits.exempt_networks),
    }


def _timeouts(settings: Settings) -> Timeouts:
    timeouts = settings.smtp.timeouts
    return Timeouts(
        command=timeouts.command,
        command_under_load=timeouts.command_under_load,
        handshake=timeouts.handshake,
        auth_line=timeouts.auth_line,
        data_idle=timeouts.data_idle,
        data_rate=timeouts.data_minimum_rate,
        store=timeouts.store,
        proxy_header=timeouts.proxy_header,
        session=timeouts.session,
        drain=timeouts.drain,
    )


def hosting(
    settings: Settings,
    accounts: Accounts,
    authenticator: Authenticator,
    scram: ScramKeys,
    store: MessageStore,
    metrics: Metrics,
    *,
    reactor: Any,
    run: Callable[..., Any],
    room: Callable[[], Reply | None],
    stored: Callable[[], None],
    remote: RemoteRecipients | None,
) -> Hosting:
    """What all sessions share."""
    smtp = settings.smtp
    return Hosting(
        accounts=accounts,
        authenticator=authenticator,
        scram=ScramLogins(scram, authenticator.note_use),
        limiter=login_limiter(settings, reactor),
        store=store,
        metrics=metrics,
        run=run,
        room=room,
        stored=stored,
        seconds=reactor.seconds,
        now=lambda: datetime.now(UTC),
        server_name=smtp.server_name,
        hosted_domains=frozenset(smtp.mx.hosted_domains),
        validate_recipients=smtp.mx.validate_recipients,
        postmaster=smtp.postmaster,
        deduplicate_mx=smtp.deduplicate.mx,
        deduplicate_submission=smtp.deduplicate.submission,
        attachment_limit=smtp.max_attachment_size_bytes,
        header_limit=_limit(smtp.limits.header_bytes),
        hop_limit=_limit(smtp.limits.hops),
        remote=remote,
    )


def resolver(settings: Settings, reactor: Any) -> Resolver:
    """Who asks the name servers of the settings."""
    return Resolver(
        [str(server) for server in settings.dns.servers or ()],
        reactor=reactor,
        trusted=settings.dns.trusted_validator,
    )


def login_limiter(settings: Settings, reactor: Any) -> FailedLoginLimiter:
    """The limit on failed logins, per client address."""
    limit = settings.security.rate_limit
    return FailedLoginLimiter(
        reactor,
        limit.max_failed_attempts,
        limit.lockout_window,
        limit.base_backoff_delay,
        limit.max_backoff_delay,
    )


def health_monitor(
    settings: Settings,
    database: Database,
    metrics: Metrics,
    *,
    submission: Callable[[], tuple[str, int] | None],
    has_submission: bool,
    tls: Callable[[], ServerTLS | None],
    probes: ProbeRegistry,
    reactor: Any,
) -> HealthMonitor:
    """The checks that this configuration has."""
    found = [
        database_check(database),
        smtp_check(submission, probes=probes, reactor=reactor, proxies=settings.smtp.proxy_networks)
        if has_submission
        else None,
        dns_mx_check(resolver(settings, reactor), settings.health_check.dns_test_domain),
        certificate_check(tls) if tls() is not None else None,
        connection_pool_check(database, clock=reactor),
        delivery_queue_check(database) if why_off(settings) is None else None,
        disk_space_check(settings.data.directory, reactor=reactor),
        memory_check(),
    ]
    return HealthMonitor(
        [check for check in found if check is not None],
        ready=settings.health_check.ready_checks,
        clock=reactor,
        record=metrics.check_finished,
        grace=GRACE,
    )


def activity(settings: Settings, database: Database, metrics: Metrics, *, reactor: Any) -> Activity:
    """What looks now and then at how much waits; where nothing is sent on there is no queue."""
    depths = [outbox_depth(database, metrics)]
    if why_off(settings) is None:
        depths.append(queue_depth(database, metrics))
    return Activity(metrics, depths, reactor=reactor)


def status_desk(
    settings: Settings, monitor: HealthMonitor, activity: Activity, metrics: Metrics, *, reactor: Any
) -> StatusDesk:
    """What knows everything that the status page shows."""
    return StatusDesk(
        monitor,
        activity,
        metrics,
        server=settings.smtp.server_name,
        version=version("relaymail"),
        clock=reactor,
    )


def watch(metrics: Metrics, database: Database, tls: Callable[[], ServerTLS | None]) -> None:
    """Have the metrics look at what is there anyhow when somebody collects them."""

    def pool() -> tuple[int, int, int, int]:
        usage = database.usage
        return usage.active, usage.open, usage.maximum, usage.waiting

    def certificate() -> float | None:
        source = tls()
        return None if source is None else source.facts.not_after.timestamp()

    metrics.watch_pool(pool)
    metrics.watch_certificate(certificate)


def _limit(value: int) -> int:
    """0 is no limit."""
    return value or sys.maxsize
