"""Asking the hosts on a database what they count of their clients: a NOTIFY asks, rows answer."""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID, uuid4

import msgspec
from twisted.internet.task import deferLater

from relaymail.store.database import Database

QUESTION_CHANNEL: Final = "relaymail_limits"
"""The NOTIFY channel on which hosts are asked; the payload is a :class:`Question` in JSON."""
PATIENCE: Final = 3.0
"""Seconds for the first host to answer."""
QUIET: Final = 0.5
"""Seconds without another answer behind which there is none to be expected."""

_LOOK: Final = 0.05
_STALE: Final = "10 minutes"

_ASK: Final = "SELECT pg_notify(%s, %s)"
_ANSWERS: Final = "SELECT state FROM relaymail.limit_state WHERE question = %s ORDER BY id"
_ANSWER: Final = """
WITH unread AS (DELETE FROM relaymail.limit_state WHERE answered_at < now() - %s::interval)
INSERT INTO relaymail.limit_state (question, state) VALUES (%s, %s)
"""
_FORGET: Final = "DELETE FROM relaymail.limit_state WHERE question = %s"


class Question(msgspec.Struct, frozen=True):
    """What is to be done. ``client`` is an IPv4 address or an IPv6 /64, ``None`` all of them."""

    id: UUID
    command: Literal["show", "reset"]
    client: str | None = None


async def ask(
    database: Database, command: Literal["show", "reset"], client: str | None, *, clock: Any
) -> list[str]:
    """The answer of each host that gives one; waits for some seconds where none does.

    Raises :exc:`DatabaseError`.
    """
    question = Question(uuid4(), command, client)
    await database.query("limits.ask", _ASK, (QUESTION_CHANNEL, msgspec.json.encode(question).decode()))
    answers: list[str] = []
    end = clock.seconds() + PATIENCE
    while clock.seconds() < end:
        await deferLater(clock, _LOOK)
        rows = await database.query("limits.answers", _ANSWERS, (question.id,))
        if len(rows) > len(answers):
            answers = [row[0] for row in rows]
            end = clock.seconds() + QUIET
    await database.execute("limits.forget", _FORGET, (question.id,))
    return answers


def read_question(payload: str) -> Question:
    """The question in a NOTIFY. Raises ``msgspec.DecodeError``."""
    return msgspec.json.decode(payload, type=Question)


async def answer(database: Database, question: Question, state: str) -> None:
    """Answer a question. Raises :exc:`DatabaseError`."""
    await database.execute("limits.answer", _ANSWER, (_STALE, question.id, state))
