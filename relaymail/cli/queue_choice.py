"""The argument and the options by which rows of the queue are chosen."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from relaymail.smtp.address import ascii_domain
from relaymail.store import queue_admin as store
from relaymail.store.archive import Archive
from relaymail.store.database import Database

ALL: Final = "all"
"""Stands for every state."""


@dataclass(frozen=True)
class Wanted:
    """The rows that the arguments and options mean."""

    ids: tuple[str, ...]
    states: tuple[str, ...]
    domain: str | None
    sender: str | None
    recipient: str | None

    @property
    def nothing(self) -> bool:
        """Whether neither an ID nor an option says which."""
        return not (self.ids or self.domain or self.recipient or self.states) and self.sender is None

    async def choice(self, database: Database, states: Sequence[store.State]) -> store.Choice:
        """The same for the store; ``states`` where the options name none."""
        rows = [int(id) for id in self.ids if _is_row(id)]
        archive = Archive(database)
        messages = [await archive.resolve(id) for id in self.ids if not _is_row(id)]
        named = tuple(state for state in store.STATES if state in self.states or ALL in self.states)
        return store.Choice(
            rows,
            messages,
            named or (() if self.ids else states),
            None if self.domain is None else ascii_domain(self.domain),
            None if self.sender is None else self.sender.removeprefix("<").removesuffix(">"),
            self.recipient,
        )


def choosing(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the options that choose rows; they arrive as one ``wanted``."""

    @functools.wraps(command)
    def chosen(
        ids: tuple[str, ...],
        states: tuple[str, ...],
        domain: str | None,
        sender: str | None,
        recipient: str | None,
        **more: Any,
    ) -> Any:
        return command(wanted=Wanted(ids, states, domain, sender, recipient), **more)

    for option in (
        click.option("--recipient", metavar="ADDRESS", help="Only mail for this address."),
        click.option("--sender", metavar="ADDRESS", help="Only mail from this address; '<>': no sender."),
        click.option("--domain", metavar="DOMAIN", help="Only mail on its way to this domain."),
        click.option(
            "--state",
            "states",
            type=click.Choice([*store.STATES, ALL]),
            multiple=True,
            help="Only rows in this state.",
        ),
        click.argument("ids", nargs=-1, metavar="[ID]..."),
    ):
        chosen = option(chosen)
    return chosen


def _is_row(id: str) -> bool:
    """A message's id begins with a zero, a row's never does."""
    return id.isascii() and id.isdecimal() and not id.startswith("0")
