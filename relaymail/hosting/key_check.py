"""bcrypt off the reactor: two threads of its own, a short queue in front of them, and nothing beyond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bcrypt
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

log = Logger()

THREADS = 2
"""bcrypt releases the GIL, and more threads than this would take the processors from mail."""

LONGEST_QUEUE = 64
"""Checks under way or waiting: at cost 11 some 5 s of work for two threads."""

LONGEST_PASSWORD = 72
"""Octets that bcrypt looks at; a longer password is never right."""

_NOBODYS_HASH = "$2b$11$37kXnHxFlUVOt/cmn2kwvuqc55/hmjE.eNzXo275NKP1Ertz5Uqhq"
"""Hash, of the API's cost, of a random text nobody knows: an unknown user's password is held against it."""


class Overloaded(Exception):
    """More checks wait than would be done in a bearable time."""


class KeyChecker:
    """Checks passwords against bcrypt hashes in threads of its own: a flood of logins hurts nobody else."""

    def __init__(self, reactor: Any, *, queue: int = LONGEST_QUEUE) -> None:
        self._reactor = reactor
        self._queue = queue
        self._outstanding = 0
        self._idle: Deferred[None] | None = None
        self._stopped = False
        self._pool = ThreadPool(minthreads=0, maxthreads=THREADS, name="bcrypt")
        self._pool.start()

    @property
    def outstanding(self) -> int:
        """Checks under way or waiting."""
        return self._outstanding

    async def matching(self, password: str, hashes: Sequence[str]) -> int | None:
        """The place in ``hashes`` of the one that ``password`` fits, or ``None``.

        Costs at least one bcrypt whatever is given, so that nothing can be told from the time it takes.

        :raises Overloaded: too many checks wait, or this checker is stopped.
        """
        if self._stopped or self._outstanding >= self._queue:
            raise Overloaded
        self._outstanding += 1
        try:
            return await deferToThreadPool(self._reactor, self._pool, _matching, password, hashes)
        finally:
            self._outstanding -= 1
            if self._idle is not None and not self._outstanding:
                # Later: whoever awaits this very check is to have its answer before stop() goes on
                self._reactor.callLater(0, self._idle.callback, None)

    async def stop(self) -> None:
        """Take no more checks, wait for those under way, end the threads."""
        if self._stopped:
            return
        self._stopped = True
        if self._outstanding:
            # ThreadPool.stop() joins its threads: with work left in them that would hold up the reactor
            self._idle = Deferred()
            await self._idle
        self._pool.stop()


def _matching(password: str, hashes: Sequence[str]) -> int | None:
    """Runs in a thread. An impossible password or an empty list is held against nobody's hash."""
    given = _usable(password)
    checked = False
    for place, hashed in enumerate(hashes if given is not None else ()):
        try:
            if bcrypt.checkpw(given or b"", hashed.encode()):
                return place
            checked = True
        except ValueError:
            log.warn("An API key is stored with a hash that bcrypt cannot read; it is passed over")
    if not checked:
        bcrypt.checkpw(given or b"", _NOBODYS_HASH.encode())
    return None


def _usable(password: str) -> bytes | None:
    """The octets of a password that could be a key, else ``None``."""
    try:
        given = password.encode()
    except UnicodeEncodeError:
        return None
    return given if 0 < len(given) <= LONGEST_PASSWORD and b"\0" not in given else None
