"""The process itself: how it refuses to start, and what it asks of the system."""

from __future__ import annotations

import gc
import resource
import sys
from typing import Final, NoReturn

EX_CONFIG: Final = 78
EX_UNAVAILABLE: Final = 69
"""Exit codes of sysexits.h."""
FILES: Final = 65_536
"""Open files the process asks to be allowed, as far as its hard limit goes."""


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
