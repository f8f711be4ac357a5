"""The process itself: how it refuses to start, what it asks of the system, and how tests have it die."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

EX_CONFIG: Final = 78
EX_UNAVAILABLE: Final = 69
"""Exit codes of sysexits.h."""
FILES: Final = 65_536
"""Open files the process asks to be allowed, as far as its hard limit goes."""
REPLY_LEAVES: Final = 0.05
"""Seconds after which a reply has left the process (for the crash point behind it)."""


class StartError(Exception):
    """The host cannot start; the text says why and how to mend it, ``code`` is the exit code."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code = code


def refuse(why: str, code: int) -> NoReturn:
    """End the process before anything is open."""
    print(f"relaymail: {why}", file=sys.__stderr__)
    raise SystemExit(code)


def raise_file_limit() -> None:
    """Each connection is a file; the usual soft limit of 1,024 is below ``Smtp:Limits:Connections``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tune_garbage_collection() -> None:
    """What was made at the start stays: look at it no more, and at the rest less often (7 % of the CPU).

    The middle generation often enough, though: TLS sessions that end abruptly leave rings only it frees.
    """
    gc.freeze()
    gc.set_threshold(20_000, 5, 1000)


def threads(reactor: Any) -> Callable[..., Deferred[Any]]:
    """A function that runs another one, with its arguments, in a thread of the reactor's pool."""

    def run(function: Callable[..., Any], *arguments: object) -> Deferred[Any]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    return run


class CrashPoint:
    """``Debug:CrashPoint``, for tests: the process dies where its name comes by, and tidies nothing up."""

    def __init__(self, name: str | None, reactor: Any) -> None:
        self._name = name
        self._reactor = reactor

    def __call__(self, point: str) -> None:
        """The work has come to ``point``."""
        if point == self._name:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_reply(self) -> None:
        """A reply is about to leave; it has left by the time we die."""
        if self._name == "after-reply":
            self._reactor.callLater(REPLY_LEAVES, self, self._name)
