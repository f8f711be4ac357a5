"""Blocking work in threads that nobody waits for at the end: a hung file system must not hold the command."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def aside(reactor: Any, function: Callable[..., T], *arguments: object) -> Deferred[T]:
    """What ``function`` returns or raises, run in a thread of its own.

    Unlike the threads of the reactor's pool it does not keep the process alive. Cancelling forgets the
    result; the thread goes on.
    """
    answer: Deferred[T] = Deferred()

    def tell(result: Any) -> None:
        if not answer.called:
            answer.callback(result)

    def work() -> None:
        result: Any
        try:
            result = function(*arguments)
        except BaseException:
            result = Failure()
        reactor.callFromThread(tell, result)

    threading.Thread(target=work, name="doctor", daemon=True).start()
    return answer
