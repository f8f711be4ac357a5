"""Addresses as administrators type them, in the spelling that look-ups find them under."""

from __future__ import annotations

import unicodedata
from typing import Any

import click

from relaymail.smtp.address import AddressError, ascii_domain, parse_mailbox


class MailAddress(click.ParamType[str]):
    """``local@domain``. The case of the local part stays; look-ups do not mind it."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address with its domain in lower case."""
        try:
            address = parse_mailbox(value)
        except AddressError as error:
            self.fail(f"{value!r} is no mail address: {error}.", param, ctx)
        return f"{unicodedata.normalize('NFC', address.local)}@{address.domain.lower()}"


class SenderAddress(MailAddress):
    """``local@domain``, or ``@domain`` for every address of a domain."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address in lower case, its domain in A-labels: the spelling that senders are compared in."""
        if value.startswith("@"):
            super().convert(f"postmaster{value}", param, ctx)
            return "@" + ascii_domain(value[1:])
        return parse_mailbox(super().convert(value, param, ctx)).keys[0]
