"""What the host tells of itself: log lines and metrics."""

from relaymail.telemetry.export import Telemetry, TelemetryError, configure
from relaymail.telemetry.logs import LineObserver, bridge_standard_logging, observer
from relaymail.telemetry.metrics import Metrics

__all__ = [
    "LineObserver",
    "Metrics",
    "Telemetry",
    "TelemetryError",
    "bridge_standard_logging",
    "configure",
    "observer",
]
