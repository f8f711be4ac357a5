"""A limit on work that tells nobody why it ended when it is cancelled."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


async def within(clock: Any, limit: float, work: Deferred[T]) -> T:
    """The result of ``work``, which is cancelled after ``limit`` seconds.

    Endpoints and agents wrap the cancellation into errors of their own; this knows who cancelled.

    :raises TimeoutError: it took too long.
    """
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        work.cancel()

    timer = clock.callLater(limit, give_up)
    try:
        return await work
    except Exception:
        if late:
            raise TimeoutError from None
        raise
    finally:
        if timer.active():
            timer.cancel()
