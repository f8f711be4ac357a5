"""How the host is: checks, their report, the port that serves it."""

from relaymail.health.activity import Activity, outbox_depth, queue_depth
from relaymail.health.monitor import HealthMonitor
from relaymail.health.result import CheckReport, HealthCheck, Report, Result, Status
from relaymail.health.server import HealthServer
from relaymail.health.status import StatusDesk

__all__ = [
    "Activity",
    "CheckReport",
    "HealthCheck",
    "HealthMonitor",
    "HealthServer",
    "Report",
    "Result",
    "Status",
    "StatusDesk",
    "outbox_depth",
    "queue_depth",
]
