"""Check of the certificate's days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from relaymail.doctor.certificates import usable
from relaymail.doctor.check import Check, Finding, Severity, failed, passed
from relaymail.doctor.context import Context
from relaymail.doctor.page import Page, Remedy
from relaymail.health.checks.certificate import DEGRADED_BELOW, UNHEALTHY_BELOW


async def look(context: Context) -> Finding:
    """The days that are left, by the thresholds of the host's own check."""
    facts = (await usable(context)).leaf
    now = datetime.fromtimestamp(context.now(), UTC)
    left = facts.not_after - now
    data: dict[str, Any] = {"notAfter": facts.not_after.isoformat(), "daysUntilExpiry": left.days}
    until = f"good from {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        return failed("The certificate has expired", until, **data)
    if now < facts.not_before:
        return failed("The certificate is not valid yet", until, **data)
    days = f"{left.days} day{'' if left.days == 1 else 's'}"
    if left < UNHEALTHY_BELOW:
        return failed(f"The certificate expires in {days}", until, **data)
    if left < DEGRADED_BELOW:
        return failed(f"The certificate expires in {days}", until, severity=Severity.WARN, **data)
    return passed(f"The certificate is good for another {days}", until, **data)


CHECK = Check(
    "check.tls.expiry",
    "Certificate is valid for long enough",
    Severity.ERROR,
    ("tls",),
    Page(
        what="Reads the dates of the certificate. Less than 30 days are a warning; less than 7 days, an "
        "expired one and "
        "one that is not valid yet are errors.",
        why="Mail programs refuse to log in over an expired certificate. Certificates are usually renewed 30 "
        "days "
        "before their end: one with fewer days left was not.",
        causes=(
            "The renewal fails, or its deploy hook does not copy the files",
            "The host reads another file than the one that is renewed",
            "The clock of this machine is wrong",
        ),
        fix=Remedy(
            "certbot renew --force-renewal --cert-name mail.example.com\n"
            "install -m 640 -g 10025 /etc/letsencrypt/live/mail.example.com/*.pem tls/",
            "certbot renew --force-renewal --cert-name mail.example.com\nsystemctl list-timers certbot.timer",
            "kubectl get certificate\nkubectl describe certificate relaymail-tls\n"
            "kubectl delete secret relaymail-tls   # cert-manager makes it anew",
        ),
        verify="openssl s_client -connect localhost:587 -starttls smtp </dev/null | openssl x509 -noout "
        "-dates",
        related=("check.tls.certificate", "check.tls.ports", "check.database.clock"),
    ),
    look,
)
