"""Whom a login may name as the sender, and when it is named itself (RFC 6409 6.1 and 8.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from relaymail.message.authors import Exhausted, authors
from relaymail.message.summary import Summary
from relaymail.smtp import reply
from relaymail.smtp.address import Address, AddressError, parse_mailbox
from relaymail.smtp.content import Content
from relaymail.smtp.reply import ReplyError

_LONGEST: Final = 320
"""Characters of an address that a user can have."""


def permits(permitted: frozenset[str], address: Address) -> bool:
    """Whether the address, or ``@`` and its whole domain, is among those permitted (lower case)."""
    return any(key in permitted or f"@{key.rpartition('@')[2]}" in permitted for key in address.keys)


async def authors_of(content: Content, summary: Summary, run: Callable[..., Any]) -> tuple[str, ...] | None:
    """Every address of ``From:``; ``None`` where there is no such field.

    Where a limit kept the reader from all of the message, the field is read again without one: a thousand
    lines in front of it must not hide it, and nothing that is only odd is refused. ``run`` runs a function in
    a thread and returns a Deferred. Raises :exc:`~relaymail.smtp.reply.ReplyError` if that takes too long.
    """
    if summary.parse_status == "complete":
        return summary.sender_addresses if summary.has_from else None
    try:
        found: tuple[str, ...] | None = await run(lambda: authors(content.map()))
    except Exhausted:
        raise ReplyError(reply.NOT_STORED) from None
    return found


def author(text: str) -> Address | None:
    """An address as the reader of ``From:`` gives it out; ``None`` for one that no user can have."""
    try:
        return parse_mailbox(text)
    except AddressError:
        # Two dots, or one at the end of a local part, are no address by the book, and in use
        local, _, domain = text.rpartition("@")
        return Address(local, domain) if local and local[0] != '"' and len(text) <= _LONGEST else None


def sender_field(email: str, *, utf8: bool) -> str | None:
    """The e-mail address of an account as the body of a ``Sender:`` field, the domain in ASCII.

    ``None`` where it is no valid address (RFC 6409 8.1 wants one), or where the local part needs an
    internationalized message and this one is none (``utf8``).
    """
    try:
        address = parse_mailbox(email)
    except AddressError:
        return None
    if not address.local.isascii():
        return str(address) if utf8 else None
    return str(address if address.domain.isascii() else Address(address.local, address.host))
