"""What the dashboard shows: rows of panels, and the queries behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHOSEN: Final = 'job=~"$job", instance=~"$instance"'
"""Selects the hosts that are looked at."""
RATE: Final = "$__rate_interval"
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"


@dataclass(frozen=True)
class Panel:
    """One panel. ``queries`` are pairs of an expression and the legend of what it gives."""

    title: str
    meaning: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    """Colours from these values on."""
    mapped: bool = False
    """The values are those of health checks."""
    text: str = "value"
    """What a stat shows: its value, or the name of the series."""
    decimals: int | None = None


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


def of(metric: str, *more: str) -> str:
    """A metric of the chosen hosts."""
    return f"relaymail_{metric}{{{', '.join([CHOSEN, *more])}}}"


def rate(metric: str, by: str = "") -> str:
    """How often a second something happens, told apart by a label."""
    return f"sum{f' by ({by})' if by else ''} (rate({of(metric)}[{RATE}]))"


def quantile(share: float, histogram: str, *more: str) -> str:
    """What a share of the values does not exceed."""
    return f"histogram_quantile({share:g}, sum by (le) (rate({of(histogram + '_bucket', *more)}[{RATE}])))"


def quantiles(histogram: str, *more: str) -> tuple[tuple[str, str], ...]:
    """The middle, and how bad it gets."""
    return (
        (quantile(0.5, histogram, *more), "half"),
        (quantile(0.95, histogram, *more), "95 %"),
        (quantile(0.99, histogram, *more), "99 %"),
    )


def mean(histogram: str) -> str:
    """The mean of the values."""
    return f"{rate(histogram + '_sum')} / {rate(histogram + '_count')}"


DAYS_LEFT: Final = f"({of('tls_certificate_not_after_timestamp_seconds')} - time()) / 86400"
DUE: Final = 'state="due"'
BY_DAYS: Final[tuple[tuple[float | None, str], ...]] = ((None, RED), (7, ORANGE), (30, GREEN))
BY_AGE: Final[tuple[tuple[float | None, str], ...]] = ((None, GREEN), (300, ORANGE), (900, RED))
PROCESS: Final = f"{{{CHOSEN}}}"

NOW = Row(
    "Now",
    (
        Panel(
            "Health",
            "The worst check of the worst host.",
            ((f"max({of('health_check_status')})", "health"),),
            kind="stat",
            width=4,
            height=4,
            mapped=True,
        ),
        Panel(
            "Hosts up",
            "Hosts whose metrics can be read.",
            ((f"sum(up{PROCESS})", "up"),),
            kind="stat",
            width=3,
            height=4,
            steps=((None, RED), (1, GREEN)),
        ),
        Panel(
            "Messages a minute",
            "Messages made durable.",
            ((f"60 * {rate('smtp_messages_received_total')}", "messages"),),
            kind="stat",
            width=4,
            height=4,
            decimals=1,
            steps=((None, BLUE),),
        ),
        Panel(
            "Sessions",
            "Open SMTP connections.",
            ((f"sum({of('smtp_connections_active')})", "sessions"),),
            kind="stat",
            width=3,
            height=4,
            steps=((None, BLUE),),
        ),
        Panel(
            "Recipients due",
            "Recipients elsewhere whose time has come. All hosts see the same queue.",
            ((f"max({of('queue_rows', DUE)})", "due"),),
            kind="stat",
            width=3,
            height=4,
            steps=((None, GREEN), (100, ORANGE), (1000, RED)),
        ),
        Panel(
            "Notifications due",
            "Notifications of the API whose time has come. All hosts see the same outbox.",
            ((f"max({of('outbox_rows', DUE)})", "due"),),
            kind="stat",
            width=3,
            height=4,
            steps=((None, GREEN), (100, ORANGE), (1000, RED)),
        ),
        Panel(
            "Certificate",
            "Days until the certificate expires that does so first.",
            ((f"min({DAYS_LEFT})", "days"),),
            unit="d",
            kind="stat",
            width=4,
            height=4,
            decimals=0,
            steps=BY_DAYS,
        ),
    ),
)

HEALTH = Row(
    "Health checks",
    (
        Panel(
            "Checks over time",
            "The worst of the chosen hosts. Checks run every 30 seconds, and whenever somebody asks.",
            ((f"max by (check) ({of('health_check_status')})", "{{check}}"),),
            kind="state-timeline",
            width=24,
            height=9,
            mapped=True,
        ),
        Panel(
            "Duration of checks",
            "The slowest of the chosen hosts. After 5 seconds a check is given up and counts as unhealthy.",
            ((f"max by (check) ({of('health_check_duration_seconds')})", "{{check}}"),),
            unit="s",
            width=12,
            steps=((None, GREEN), (1, ORANGE), (5, RED)),
        ),
        Panel(
            "Alerts that fire",
            "Those of prometheus-rules.yaml.",
            (
                (
                    'count by (alertname) (ALERTS{alertname=~"Relaymail.*", alertstate="firing"})',
                    "{{alertname}}",
                ),
            ),
            kind="state-timeline",
            width=12,
            steps=((None, GREEN), (1, RED)),
        ),
    ),
)

MAIL = Row(
    "Mail that comes in",
    (
        Panel(
            "Messages",
            "Messages made durable, by listener.",
            ((rate("smtp_messages_received_total", "listener"), "{{listener}}"),),
            unit="mps",
            stacked=True,
        ),
        Panel(
            "Bytes",
            "Bytes of messages made durable, by listener.",
            ((rate("smtp_bytes_received_total", "listener"), "{{listener}}"),),
            unit="Bps",
            stacked=True,
        ),
        Panel(
            "Time to accept",
            "From the last byte of a message to its reply, whatever the reply is.",
            quantiles("smtp_message_processing_duration_seconds"),
            unit="s",
        ),
        Panel(
            "Refusals",
            "What was refused, by reason.",
            ((rate("smtp_refusals_total", "reason"), "{{reason}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Replies",
            "Replies by code. 4xx: try again; 5xx: refused for good.",
            ((rate("smtp_replies_total", "code"), "{{code}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Errors nobody foresaw",
            "Commands answered 451 because of a fault in the program. The log has each.",
            ((rate("smtp_errors_unexpected_total", "instance"), "{{instance}}"),),
            unit="cps",
        ),
        Panel(
            "Open connections",
            "SMTP connections by listener.",
            ((f"sum by (listener) ({of('smtp_connections_active')})", "{{listener}}"),),
            stacked=True,
        ),
        Panel(
            "What ended sessions",
            "`quit` is how it should be.",
            ((rate("smtp_sessions_total", "end"), "{{end}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Length of sessions",
            "From connection to its end.",
            quantiles("smtp_session_duration_seconds"),
            unit="s",
        ),
        Panel(
            "TLS of sessions",
            "TLS version of sessions that ended; `none` is in clear.",
            ((rate("smtp_sessions_total", "listener, tls"), "{{listener}} {{tls}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Logins",
            "Logins tried and refused.",
            (
                (rate("smtp_auth_attempts_total"), "tried"),
                (rate("smtp_auth_failures_total"), "refused"),
            ),
            unit="cps",
        ),
        Panel(
            "Commands",
            "Commands received; `other` are unknown ones.",
            ((rate("smtp_commands_total", "command"), "{{command}}"),),
            unit="cps",
            stacked=True,
        ),
    ),
)

DATABASE = Row(
    "Database",
    (
        Panel(
            "Time of statements",
            "Seconds in each second that are spent on an operation, the ten that take most.",
            (
                (
                    f"topk(10, {rate('db_client_operation_duration_seconds_sum', 'operation')})",
                    "{{operation}}",
                ),
            ),
            unit="s",
            stacked=True,
        ),
        Panel(
            "Time to store",
            "The transaction that makes messages durable, waiting for a connection included.",
            quantiles("db_client_operation_duration_seconds", 'operation="messages.accept"'),
            unit="s",
        ),
        Panel(
            "Messages in a transaction",
            "How many messages share a commit: more under load.",
            ((mean("store_batch_size"), "mean"), (quantile(0.95, "store_batch_size"), "95 %")),
            decimals=1,
        ),
        Panel(
            "Failures",
            "Statements and transactions that failed.",
            ((rate("db_client_operation_failures_total", "operation"), "{{operation}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Connections",
            "The pool: in use, idle, what it may have, and what waits for one.",
            (
                (f"sum by (state) ({of('db_client_connections')})", "{{state}}"),
                (f"sum({of('db_client_connection_max')})", "allowed"),
                (f"sum({of('db_client_connection_pending_requests')})", "waiting"),
            ),
        ),
        Panel(
            "Waiting for a connection",
            "Of those that had to wait for one.",
            quantiles("db_client_connection_wait_time_seconds"),
            unit="s",
        ),
    ),
)

ONWARD = Row(
    "Mail to other hosts",
    (
        Panel(
            "Queue",
            "Recipients that wait, and those of them that are due, being sent, stalled or held.",
            ((f"max by (state) ({of('queue_rows')})", "{{state}}"),),
        ),
        Panel(
            "Age of the queue",
            "How long the most overdue recipient has waited. Grows when deliveries do not keep up.",
            ((f"max({of('queue_oldest_age_seconds')})", "oldest"),),
            unit="s",
            steps=BY_AGE,
        ),
        Panel(
            "Deliveries",
            "Attempts to deliver to a recipient, by result.",
            ((rate("delivery_recipients_total", "result"), "{{result}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "Time of deliveries",
            "From the first command for a message to its last reply.",
            quantiles("delivery_duration_seconds"),
            unit="s",
        ),
        Panel(
            "TLS to next hosts",
            "Connections to next hosts by TLS version; `none` is in clear.",
            ((rate("delivery_connections_total", "tls"), "{{tls}}"),),
            unit="cps",
            stacked=True,
        ),
        Panel(
            "TLS asked of next hosts",
            "What their TLS was decided by, once for several messages; MTA-STS policies that were fetched.",
            (
                (rate("delivery_tls_policies_total", "source"), "{{source}}"),
                (rate("delivery_mta_sts_fetches_total", "result"), "MTA-STS {{result}}"),
            ),
            unit="cps",
        ),
        Panel(
            "Reports",
            "Delivery status notifications made, by kind, or dropped.",
            ((rate("delivery_reports_total", "kind"), "{{kind}}"),),
            unit="cps",
            stacked=True,
        ),
    ),
)

OUTBOX = Row(
    "Notifications of the API",
    (
        Panel(
            "Outbox",
            "Notifications that wait, those of them that are due, and those given up.",
            ((f"max by (state) ({of('outbox_rows')})", "{{state}}"),),
        ),
        Panel(
            "Age of the outbox",
            "How long the most overdue notification has waited.",
            ((f"max({of('outbox_oldest_age_seconds')})", "oldest"),),
            unit="s",
            steps=BY_AGE,
        ),
        Panel(
            "Calls",
            "Calls of the API by result.",
            ((rate("notifications_total", "result"), "{{result}}"),),
            unit="cps",
            stacked=True,
        ),
    ),
)

HOST = Row(
    "Host",
    (
        Panel(
            "Certificate",
            "Days until it expires.",
            ((f"min by (instance) ({DAYS_LEFT})", "{{instance}}"),),
            unit="d",
            decimals=1,
            steps=BY_DAYS,
        ),
        Panel(
            "Lag of the reactor",
            "How late it comes to a timer: as long does every client wait for each reply.",
            quantiles("reactor_lag_seconds"),
            unit="s",
        ),
        Panel(
            "CPU",
            "Of one processor.",
            ((f"rate(process_cpu_seconds_total{PROCESS}[{RATE}])", "{{instance}}"),),
            unit="percentunit",
        ),
        Panel(
            "Memory",
            "Resident memory of the host, without PostgreSQL.",
            ((f"process_resident_memory_bytes{PROCESS}", "{{instance}}"),),
            unit="bytes",
        ),
        Panel(
            "File descriptors",
            "Open ones, of those allowed.",
            ((f"process_open_fds{PROCESS} / process_max_fds{PROCESS}", "{{instance}}"),),
            unit="percentunit",
            steps=((None, GREEN), (0.8, RED)),
        ),
        Panel(
            "Uptime",
            "Since the start of the process.",
            ((f"time() - process_start_time_seconds{PROCESS}", "{{instance}}"),),
            unit="s",
            kind="stat",
            width=4,
            steps=((None, BLUE),),
        ),
        Panel(
            "Version",
            "Versions that run.",
            ((f"count by (version) ({of('build_info')})", "{{version}}"),),
            kind="stat",
            width=4,
            text="name",
            steps=((None, BLUE),),
        ),
    ),
)

ROWS: Final = (NOW, HEALTH, MAIL, DATABASE, ONWARD, OUTBOX, HOST)
