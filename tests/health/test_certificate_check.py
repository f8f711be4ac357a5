"""The check of the certificate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from relaymail.health import Result, Status
from relaymail.health.checks import certificate_check
from relaymail.health.checks.certificate import CertificateSource
from relaymail.smtp.tls import ServerTLS

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)


@dataclass
class Facts:
    """A certificate's."""

    not_after: datetime
    not_before: datetime = NOW - timedelta(days=60)
    subject: str = "CN=mail.example.test"
    thumbprint: str = "AB12"


@dataclass
class Source:
    """A certificate in use."""

    facts: Facts
    error: str | None = None


async def run(source: CertificateSource | None) -> Result:
    check = certificate_check(lambda: source, now=lambda: NOW)
    assert (check.name, check.tags) == ("certificate", ("tls",))
    return await check.run()


@pytest.mark.parametrize(
    ("left", "status", "days", "description"),
    [
        (timedelta(days=31), Status.HEALTHY, 31, "the certificate expires in 31 days"),
        (timedelta(days=30), Status.HEALTHY, 30, "the certificate expires in 30 days"),
        (timedelta(days=30, seconds=-1), Status.DEGRADED, 29, "the certificate expires in 29 days"),
        (timedelta(days=29), Status.DEGRADED, 29, "the certificate expires in 29 days"),
        (timedelta(days=7), Status.DEGRADED, 7, "the certificate expires in 7 days"),
        (timedelta(days=7, seconds=-1), Status.UNHEALTHY, 6, "the certificate expires in 6 days"),
        (timedelta(days=6), Status.UNHEALTHY, 6, "the certificate expires in 6 days"),
        (timedelta(days=1), Status.UNHEALTHY, 1, "the certificate expires in 1 day"),
        (timedelta(0), Status.UNHEALTHY, 0, "the certificate has expired"),
        (timedelta(days=-1), Status.UNHEALTHY, -1, "the certificate has expired"),
    ],
)
async def test_the_days_left_decide(left: timedelta, status: Status, days: int, description: str) -> None:
    result = await run(Source(Facts(NOW + left)))
    assert (result.status, result.description) == (status, description)
    assert result.data["daysUntilExpiry"] == days


async def test_the_data_are_those_of_the_contract() -> None:
    elsewhere = timezone(timedelta(hours=2))
    result = await run(Source(Facts((NOW + timedelta(days=90)).astimezone(elsewhere))))
    assert result.data == {
        "subject": "CN=mail.example.test",
        "notBefore": "2026-04-02T12:00:00Z",
        "notAfter": "2026-08-30T12:00:00Z",
        "daysUntilExpiry": 90,
        "thumbprint": "AB12",
    }


async def test_a_certificate_of_the_future_is_unhealthy() -> None:
    result = await run(Source(Facts(NOW + timedelta(days=90), not_before=NOW + timedelta(seconds=1))))
    assert (result.status, result.description) == (Status.UNHEALTHY, "the certificate is not valid yet")


async def test_none_is_unhealthy() -> None:
    assert await run(None) == Result(Status.UNHEALTHY, "the certificate is missing or unreadable")


async def test_a_file_gone_bad_is_unhealthy_though_the_old_one_is_in_use() -> None:
    result = await run(Source(Facts(NOW + timedelta(days=90)), "/etc/ssl/private/key.pem: permission denied"))
    assert result.status is Status.UNHEALTHY
    assert "/etc" not in str(result.description)
    assert result.data["daysUntilExpiry"] == 90


def write(path: Path, left: timedelta) -> x509.Certificate:
    """A certificate of its own that is good for so long, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail.example.test")])
    now = datetime.now(UTC)
    whole_days = timedelta(minutes=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=10))
        .not_valid_after(now + left + whole_days)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate


@pytest.mark.parametrize(
    ("days", "status", "description"),
    [
        (31, Status.HEALTHY, "the certificate expires in 31 days"),
        (29, Status.DEGRADED, "the certificate expires in 29 days"),
        (6, Status.UNHEALTHY, "the certificate expires in 6 days"),
        (-1, Status.UNHEALTHY, "the certificate has expired"),
    ],
)
async def test_a_real_certificate_is_judged(
    tmp_path: Path, days: int, status: Status, description: str
) -> None:
    path = tmp_path / "both.pem"
    certificate = write(path, timedelta(days=days))
    tls = ServerTLS(path)
    result = await certificate_check(lambda: tls).run()
    assert (result.status, result.description) == (status, description)
    assert result.data["daysUntilExpiry"] == days
    assert result.data["subject"] == "CN=mail.example.test"
    assert result.data["thumbprint"] == certificate.fingerprint(hashes.SHA1()).hex().upper()


@pytest.mark.parametrize("harm", ["no certificate", "gone", "a key only"])
async def test_a_real_file_that_goes_bad_is_unhealthy_until_it_is_mended(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "both.pem"
    write(path, timedelta(days=90))
    good = path.read_bytes()
    tls = ServerTLS(path)
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(
            harm.encode() if harm == "no certificate" else good[good.index(b"-----BEGIN PRIV") :]
        )
    tls.reload()
    result = await certificate_check(lambda: tls).run()
    assert result.status is Status.UNHEALTHY
    assert (
        result.description == "the certificate's file is missing or unreadable; the one read before is in use"
    )
    assert str(tmp_path) not in str(result.data)
    path.write_bytes(good)
    tls.reload()
    assert (await certificate_check(lambda: tls).run()).status is Status.HEALTHY
