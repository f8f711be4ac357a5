"""The checks; each makes a :class:`~relaymail.health.result.HealthCheck` of what it looks at."""

from relaymail.health.checks.certificate import CertificateFacts, certificate_check
from relaymail.health.checks.database import connection_pool_check, database_check
from relaymail.health.checks.delivery_queue import delivery_queue_check
from relaymail.health.checks.dns_mx import dns_mx_check
from relaymail.health.checks.smtp import smtp_check
from relaymail.health.checks.system import disk_space_check, memory_check

__all__ = [
    "CertificateFacts",
    "certificate_check",
    "connection_pool_check",
    "database_check",
    "delivery_queue_check",
    "disk_space_check",
    "dns_mx_check",
    "memory_check",
    "smtp_check",
]
