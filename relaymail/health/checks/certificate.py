"""Check of the TLS certificate: for how long is it good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from relaymail.health.result import HealthCheck, Result, Status

DEGRADED_BELOW = timedelta(days=30)
UNHEALTHY_BELOW = timedelta(days=7)


class CertificateFacts(Protocol):
    """What there is to tell of a certificate."""

    @property
    def subject(self) -> str:
        """Its subject, as text (RFC 4514)."""

    @property
    def not_before(self) -> datetime:
        """It is good from then, with time zone."""

    @property
    def not_after(self) -> datetime:
        """It is good until then, with time zone."""

    @property
    def thumbprint(self) -> str:
        """Hash of it, in hexadecimal."""


class CertificateSource(Protocol):
    """A certificate in use, read from a file: :class:`relaymail.smtp.tls.ServerTLS` is one."""

    @property
    def facts(self) -> CertificateFacts:
        """Of the certificate in use."""

    @property
    def error(self) -> str | None:
        """Why the file as it is now cannot be used; ``None`` while all is well."""


def _now() -> datetime:
    return datetime.now(UTC)


def certificate_check(
    source: Callable[[], CertificateSource | None], *, now: Callable[[], datetime] = _now
) -> HealthCheck:
    """How long the certificate in use is still good, and whether its file would be taken again.

    :param source: asked at each run; ``None``: none could be loaded.
    :param now: the time, with time zone.
    """

    async def run() -> Result:
        certificate = source()
        if certificate is None:
            return Result(Status.UNHEALTHY, "the certificate is missing or unreadable")
        result = _judge(certificate.facts, now())
        if certificate.error is not None:
            # Its text names the file
            text = "the certificate's file is missing or unreadable; the one read before is in use"
            return Result(Status.UNHEALTHY, text, result.data)
        return result

    return HealthCheck("certificate", ("tls",), run)


def _judge(certificate: CertificateFacts, now: datetime) -> Result:
    left = certificate.not_after - now
    days = left.days
    data = {
        "subject": certificate.subject,
        "notBefore": _iso(certificate.not_before),
        "notAfter": _iso(certificate.not_after),
        "daysUntilExpiry": days,
        "thumbprint": certificate.thumbprint,
    }
    if left <= timedelta(0):
        return Result(Status.UNHEALTHY, "the certificate has expired", data)
    if now < certificate.not_before:
        return Result(Status.UNHEALTHY, "the certificate is not valid yet", data)
    description = f"the certificate expires in {days} {'day' if days == 1 else 'days'}"
    if left < UNHEALTHY_BELOW:
        return Result(Status.UNHEALTHY, description, data)
    if left < DEGRADED_BELOW:
        return Result(Status.DEGRADED, description, data)
    return Result(Status.HEALTHY, description, data)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
