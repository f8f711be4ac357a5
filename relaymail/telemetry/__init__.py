"""What the host tells of itself: log lines, metrics, traces."""

from relaymail.telemetry.export import Telemetry, TelemetryError, configure
from relaymail.telemetry.logs import LineObserver, bridge_standard_logging, observer
from relaymail.telemetry.metrics import Metrics
from relaymail.telemetry.spans import Tracer

__all__ = [
    "LineObserver",
    "Metrics",
    "Telemetry",
    "TelemetryError",
    "Tracer",
    "bridge_standard_logging",
    "configure",
    "observer",
]
