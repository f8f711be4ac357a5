"""How the host is: checks, their report, the port that serves it."""

from relaymail.health.monitor import HealthMonitor
from relaymail.health.result import CheckReport, HealthCheck, Report, Result, Status
from relaymail.health.server import HealthServer

__all__ = [
    "CheckReport",
    "HealthCheck",
    "HealthMonitor",
    "HealthServer",
    "Report",
    "Result",
    "Status",
]
