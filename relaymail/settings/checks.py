"""What must hold between settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from relaymail.settings.errors import SettingsError
from relaymail.settings.model import Settings


class Problem(NamedTuple):
    """Something that does not fit together."""

    keys: tuple[str, ...]
    """The keys involved; if one of them could not be read, the problem is not reported."""
    text: str


def problems(settings: Settings) -> Iterator[Problem]:
    """Everything about ``settings`` with which the host must not start."""
    smtp = settings.smtp
    if smtp.mx.enabled and not smtp.mx.hosted_domains:
        yield Problem(
            ("Smtp:Mx:Enabled", "Smtp:Mx:HostedDomains"),
            "Smtp:Mx:HostedDomains is empty, but Smtp:Mx:Enabled is true; allowed: at least one domain "
            "that is not blank, such as example.com, or Smtp:Mx:Enabled=false",
        )
    if smtp.certificate_key_path is not None and smtp.certificate_path is None:
        yield Problem(
            ("Smtp:CertificateKeyPath", "Smtp:CertificatePath"),
            f'Smtp:CertificateKeyPath is "{smtp.certificate_key_path}", but Smtp:CertificatePath is not set; '
            "allowed: both, or none",
        )
    if smtp.enabled and not smtp.bind_addresses:
        yield Problem(
            ("Smtp:BindAddresses",),
            "Smtp:BindAddresses is empty; allowed: at least one IP address, or Smtp:Enabled=false",
        )
    if settings.data.embedded_postgres and settings.connection is not None:
        yield Problem(
            ("Data:EmbeddedPostgres", "ConnectionStrings:DefaultConnection"),
            "Data:EmbeddedPostgres is true, and ConnectionStrings:DefaultConnection is set, too; allowed: "
            "one of them: the database of the connection string, or our own in Data:Directory",
        )
    yield from _shared_ports(settings)


def _shared_ports(settings: Settings) -> Iterator[Problem]:
    """Two listeners on one port. Where an endpoint string takes a port's place, the system finds out."""
    smtp = settings.smtp
    listeners = []
    if smtp.enabled:
        if smtp.endpoints.submission is None:
            listeners.append(("Smtp:Port", smtp.port))
        if smtp.endpoints.smtps is None:
            listeners.append(("Smtp:SecurePort", smtp.secure_port))
        if smtp.mx.enabled and smtp.endpoints.mx is None:
            listeners.append(("Smtp:Mx:Port", smtp.mx.port))
    listeners.append(("HealthCheck:Url", settings.health_check.url.port))
    taken: dict[int, str] = {}
    for key, port in listeners:
        if port == 0:
            continue
        if port in taken:
            other = taken[port]
            yield Problem(
                (key, other),
                f"{key} has port {port}, which {other} has already; allowed: a port of its own for each",
            )
        taken.setdefault(port, key)


def oddities(settings: Settings) -> Iterator[str]:
    """What is allowed but hardly meant."""
    smtp = settings.smtp
    endpoints = smtp.endpoints
    if smtp.enabled and not (
        smtp.port
        or smtp.secure_port
        or (smtp.mx.enabled and smtp.mx.port)
        or endpoints.submission
        or endpoints.smtps
        or (smtp.mx.enabled and endpoints.mx)
    ):
        yield "Smtp:Enabled is true, but Smtp:Port, Smtp:SecurePort and Smtp:Mx are off: no listener opens"
    if endpoints.mx is not None and not smtp.mx.enabled:
        yield "Smtp:Endpoints:Mx is set, but Smtp:Mx:Enabled is false: it does not open"
    if smtp.certificate_password is not None and smtp.certificate_path is None:
        yield "Smtp:CertificatePassword is set, but Smtp:CertificatePath is not"


def require_database(settings: Settings) -> None:
    """Raise :class:`SettingsError` with the ways on, if ``settings`` name no database.

    Never fall back to one of our own: when a secret was lost, mail would go to a database nobody looks into.
    """
    if settings.connection is None and not settings.data.embedded_postgres:
        raise SettingsError(
            "ConnectionStrings:DefaultConnection is missing or empty, so there is no database to store mail "
            "in. Three ways on: set ConnectionStrings:DefaultConnection (environment variable "
            "ConnectionStrings__DefaultConnection) to the PostgreSQL database, as in "
            "Host=db;Database=relate;Username=relate;Password=… or postgresql://relate:…@db/relate; "
            "or set Data:EmbeddedPostgres=true (environment variable Data__EmbeddedPostgres) for a "
            "PostgreSQL of our own, kept in Data:Directory; or start with --demo to try the host out."
        )
