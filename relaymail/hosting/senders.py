"""Whom a login may name as the author of a message, and when it is named itself (RFC 6409 6.1 and 8.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from relaymail.hosting.authenticator import Login
from relaymail.message.authors import authors
from relaymail.message.summary import Summary
from relaymail.smtp.address import Address, AddressError, parse_mailbox
from relaymail.smtp.content import Content
from relaymail.store.accounts import Accounts

_LONGEST: Final = 320
"""Characters of an address that a user can have."""


class AuthorNotPermitted(Exception):
    """``From:`` names somebody this login may not send as."""


def permits(permitted: frozenset[str], address: Address) -> bool:
    """Whether the address, or ``@`` and its whole domain, is among those permitted (lower case)."""
    return any(key in permitted or f"@{key.rpartition('@')[2]}" in permitted for key in address.keys)


class Authorship:
    """Decides about ``From:``. ``run`` runs a function in a thread and returns a Deferred."""

    def __init__(self, accounts: Accounts, run: Callable[..., Any]) -> None:
        self._accounts = accounts
        self._run = run

    async def sender_to_add(
        self, login: Login, content: Content, summary: Summary, *, utf8: bool
    ) -> str | None:
        """Check the authors; the address for a ``Sender:`` field that the message lacks, ``None`` for none.

        Every address of ``From:`` must be one that the login may send as, whatever the reverse-path is: a
        ``Sender:`` beside it would not keep a reader from taking it for the author. A message without the
        field says nothing wrong; a field in which no address can be read might, to another reader.

        The Sender is the login's e-mail address. It is added where ``From:`` does not tell who sent the
        message (a granted address, several addresses, none at all), and not beside another address of the
        same user: their further addresses are theirs to tell of. ``utf8``: whether the message may be
        internationalized.

        :raises AuthorNotPermitted: somebody else is named.
        :raises Exhausted: an overlong header section could not be read in time.
        :raises DatabaseError: it cannot be told now.
        """
        named = await self._named(content, summary)
        addresses: list[Address | None] = []
        if named is not None:
            permitted = await self._accounts.sender_addresses(login.user_id)
            own = login.email.lower()
            if own in permitted and len(named) == 1 and named[0].lower() == own:
                return None  # nearly all mail; nothing has to be taken apart
            addresses = [_address(text) for text in named]
            if not addresses or not all(each and permits(permitted, each) for each in addresses):
                raise AuthorNotPermitted
        if summary.has_sender:
            return None
        different = {each.keys[0]: each for each in addresses if each}
        if len(different) == 1 and await self._is_own(next(iter(different.values())), login):
            return None
        return sender_field(login.email, utf8=utf8)

    async def _named(self, content: Content, summary: Summary) -> tuple[str, ...] | None:
        """Every address of ``From:``; ``None`` where there is no such field.

        Where a limit kept the reader from all of the message, the field is read again without one: a thousand
        lines in front of it must not hide it, and nothing that is only odd is refused.
        """
        if summary.parse_status == "complete":
            return summary.sender_addresses if summary.has_from else None
        found: tuple[str, ...] | None = await self._run(lambda: authors(content.map()))
        return found

    async def _is_own(self, address: Address, login: Login) -> bool:
        """Whether the address is the login's own or a verified one, not only granted."""
        if login.email.lower() in address.keys:
            return True
        for key in address.keys:
            owner = await self._accounts.owner(key)
            if owner is not None:
                return owner.user_id == login.user_id
        return False


def _address(text: str) -> Address | None:
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
    internationalized message and this one is none.
    """
    try:
        address = parse_mailbox(email)
    except AddressError:
        return None
    if not address.local.isascii():
        return str(address) if utf8 else None
    return str(address if address.domain.isascii() else Address(address.local, address.host))
