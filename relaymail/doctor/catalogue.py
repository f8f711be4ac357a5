"""Every check, in the order of reports: what others rest on comes first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relaymail.doctor.check import Check
from relaymail.doctor.checks import (
    accounts_addresses,
    accounts_postmaster,
    api_key,
    api_reachable,
    database_clock,
    database_embedded,
    database_indexes,
    database_migrations,
    database_permissions,
    database_reachable,
    database_version,
    dns_addresses,
    dns_dkim,
    dns_dmarc,
    dns_mta_sts,
    dns_mx,
    dns_ptr,
    dns_resolver,
    dns_spf,
    dns_validation,
    host_health,
    integration_smtp,
    mail_mailboxes,
    mail_outbox_dead,
    mail_outbox_due,
    mail_outbox_leases,
    mail_recipients,
    outbound_port25,
    ports_listeners,
    queue_blocked,
    queue_due,
    queue_leases,
    settings_valid,
    system_data_folder,
    system_disk,
    system_files,
    system_privileges,
    tls_certificate,
    tls_chain,
    tls_expiry,
    tls_names,
    tls_ports,
)

CHECKS: tuple[Check, ...] = (
    settings_valid.CHECK,
    system_data_folder.CHECK,
    system_disk.CHECK,
    system_files.CHECK,
    system_privileges.CHECK,
    ports_listeners.CHECK,
    host_health.CHECK,
    database_reachable.CHECK,
    database_version.CHECK,
    database_permissions.CHECK,
    database_migrations.CHECK,
    database_indexes.CHECK,
    database_clock.CHECK,
    database_embedded.CHECK,
    tls_certificate.CHECK,
    tls_expiry.CHECK,
    tls_chain.CHECK,
    tls_names.CHECK,
    tls_ports.CHECK,
    dns_resolver.CHECK,
    dns_validation.CHECK,
    dns_addresses.CHECK,
    dns_ptr.CHECK,
    dns_mx.CHECK,
    dns_spf.CHECK,
    dns_dkim.CHECK,
    dns_dmarc.CHECK,
    dns_mta_sts.CHECK,
    outbound_port25.CHECK,
    api_reachable.CHECK,
    api_key.CHECK,
    mail_recipients.CHECK,
    mail_mailboxes.CHECK,
    mail_outbox_dead.CHECK,
    mail_outbox_leases.CHECK,
    mail_outbox_due.CHECK,
    queue_leases.CHECK,
    queue_due.CHECK,
    queue_blocked.CHECK,
    accounts_addresses.CHECK,
    accounts_postmaster.CHECK,
    integration_smtp.CHECK,
)

BY_ID = {check.id: check for check in CHECKS}


class UnknownCheck(Exception):
    """There is no such check; the text is the id that was given."""


def chosen(ids: Iterable[str]) -> Sequence[Check]:
    """The checks with these ids, or all of an area (``check.dns``), in the order of reports; none: all.

    :raises UnknownCheck: one of ``ids`` is neither.
    """
    wanted: set[str] = set()
    for given in ids:
        found = [id for id in BY_ID if id == given or id.startswith(f"{given.rstrip('.')}.")]
        if not found:
            raise UnknownCheck(given)
        wanted.update(found)
    return [check for check in CHECKS if not wanted or check.id in wanted]
