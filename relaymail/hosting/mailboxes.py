"""Which rows of the shared tables a message becomes: who sees it, and who must not learn of whom."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID, uuid4

from relaymail.message.envelope import Envelope
from relaymail.message.record import MailboxEmail, MailboxRecipient
from relaymail.message.summary import Summary


def header_only(envelope: Envelope, summary: Summary) -> list[str]:
    """Addresses of the headers, lower case, that the envelope does not reach."""
    reached = {recipient.address.lower() for recipient in envelope.recipients}
    return [r.address.lower() for r in summary.recipients if r.address.lower() not in reached]


def emails_for(
    envelope: Envelope, summary: Summary, sender: UUID | None, owners: Mapping[str, UUID]
) -> tuple[MailboxEmail, ...]:
    """The rows of ``Emails``: one shared by the sender and the To/Cc recipients, one of their own for all
    others.

    ``owners`` tells who has a header address that the envelope does not reach (lower case). Such a row is
    left out: the API would hand it to its owner, and a forged ``To:`` must reach nobody.
    """
    reached = {recipient.address.lower(): recipient.user_id for recipient in envelope.recipients}
    users = {user for user in reached.values() if user is not None}
    shared: list[MailboxRecipient] = []
    named: set[str] = set()
    seen: set[UUID] = set()
    for header in summary.recipients:
        key = header.address.lower()
        owner = reached[key] if key in reached else owners.get(key)
        if owner is not None and owner not in users:
            continue
        if key in reached:
            named.add(key)
        if owner is not None and owner in seen:
            # Two addresses of one user are one row, or the IMAP host cannot open the mailbox
            continue
        if owner is not None:
            seen.add(owner)
        shared.append(MailboxRecipient(header.address, header.display_name, header.type, owner))
    emails: list[MailboxEmail] = []
    if sender is not None or named or seen:
        emails.append(MailboxEmail(uuid4(), tuple(shared), sender, tuple(dict.fromkeys(_users(shared)))))
    for recipient in envelope.recipients:
        user = recipient.user_id
        if recipient.address.lower() in named or user in seen:
            continue
        if recipient.destination is not None:
            # A hidden recipient elsewhere: a row would be given to whoever once registers with that address
            continue
        if user is not None:
            seen.add(user)
        alone = MailboxRecipient(recipient.address, None, "Bcc", user)
        emails.append(MailboxEmail(uuid4(), (alone,), None, () if user is None else (user,)))
    return tuple(emails)


def _users(recipients: list[MailboxRecipient]) -> list[UUID]:
    return [recipient.user_id for recipient in recipients if recipient.user_id is not None]
