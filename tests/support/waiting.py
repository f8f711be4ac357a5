"""Waiting for something to come true, instead of sleeping for as long as it might take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.polling import LIMIT


async def pause(reactor: Any, seconds: float) -> None:
    """Let the reactor turn for ``seconds``."""
    over: Deferred[None] = Deferred()
    reactor.callLater(seconds, over.callback, None)
    await over


async def until(reactor: Any, condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Return as soon as ``condition`` holds.

    :raises AssertionError: it did not within ``limit`` seconds.
    """
    end = reactor.seconds() + limit
    while not condition():
        assert reactor.seconds() < end, f"it did not come true within {limit:g} s"
        await pause(reactor, 0.01)


async def until_answered(
    reactor: Any, question: Callable[[], Awaitable[object]], limit: float = LIMIT
) -> None:
    """The same for what has to be asked for, as of a database: return as soon as the answer is yes."""
    end = reactor.seconds() + limit
    while not await question():
        assert reactor.seconds() < end, f"it did not come true within {limit:g} s"
        await pause(reactor, 0.02)
