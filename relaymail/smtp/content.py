"""The content of a message on its way in: where DATA ends (RFC 5321 4.1.1.4, 4.5.2), and where its bytes are
kept.

The cost per byte is a search for the terminator across chunk borders, never a Python call per line.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

log = Logger()

KIB: Final = 1024
SLICE: Final = 64 * KIB
"""Octets looked at in one go."""

PIECES: Final = 1024
"""Pieces of a message that are held apart: each costs fifty octets more than it holds."""

_TERMINATOR: Final = b"\r\n.\r\n"


class LineCheck:
    """Looks at the lines of a content: whether one is too long, whether a CR or LF stands alone.

    :param limit: octets of the longest line, without its line end.
    """

    __slots__ = ("_limit", "_line", "bare_newline", "long_line")

    def __init__(self, limit: int) -> None:
        self._limit = limit + 1
        """With the CR, which is counted along."""
        self._line = 0
        self.bare_newline = False
        """Whether a CR or LF stood alone."""
        self.long_line = False
        """Whether a line was longer than the limit."""

    def look_for_bare_newlines(self, data: bytes) -> None:
        """Look at the next octets; a CRLF must not be cut in two."""
        ends = data.count(b"\r\n")
        if data.count(b"\n") != ends or data.count(b"\r") != ends:
            self.bare_newline = True

    def measure_lines(self, data: bytes) -> None:
        """Look at the next octets."""
        first = data.find(b"\n")
        if first < 0:
            self._line += len(data)
        else:
            self._line += first
            if self._line > self._limit:
                self.long_line = True
            last = data.rfind(b"\n")
            # Only where there is room for a line that is too long between them is it worth a look
            if last - first > self._limit and _longest_line(data) > self._limit:
                self.long_line = True
            self._line = len(data) - last - 1
        if self._line > self._limit:
            self.long_line = True


class DataReader(LineCheck):
    """Finds the end of DATA and undoes dot-stuffing, whatever way the bytes are cut.

    Only ``CRLF.CRLF`` ends the data; the CRLF of the DATA command counts as the first of them. A stuffed dot
    does not count for the length of a line.
    """

    __slots__ = ("_carry", "_started")

    def __init__(self, line_limit: int) -> None:
        super().__init__(line_limit)
        # The line end of the DATA command itself: with it the first line is like every other
        self._carry = b"\r\n"
        self._started = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take the next bytes (at most :data:`SLICE`) and return content, and what is behind the end.

        The second item is ``None`` while the end has not come.
        """
        data = self._carry + data
        end = data.find(_TERMINATOR)
        if end >= 0:
            rest = data[end + len(_TERMINATOR) :]
            self._carry = b""
            return self._content(data[: end + 2]), rest
        cut = max(len(data) - len(_TERMINATOR) + 1, 0)
        # A line end must not be cut from what follows it: a dot may
        if data[cut - 1 : cut] == b"\n":
            cut -= 1
        if data[cut - 1 : cut] == b"\r":
            cut -= 1
        self._carry = data[cut:]
        return self._content(data[:cut]), None

    def _content(self, data: bytes) -> bytes:
        if not data:
            return data
        self.look_for_bare_newlines(data)
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n")
        self.measure_lines(data)
        if not self._started:
            self._started = True
            data = data[2:]
        return data


class ChunkReader(LineCheck):
    """Takes the octets of chunks, just as they are (BDAT, RFC 3030)."""

    __slots__ = ("_cr", "_left")

    def __init__(self, line_limit: int) -> None:
        super().__init__(line_limit)
        self._left = 0
        self._cr = b""
        """A CR at the end of what was looked at: the LF may be in what follows."""

    def begin(self, size: int) -> None:
        """The next chunk has ``size`` octets."""
        self._left = size

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take the next bytes; returns content, and what is behind the chunk (``None``: it goes on)."""
        text = data[: self._left]
        self._left -= len(text)
        looked_at = self._cr + text
        self._cr = b"\r" if looked_at.endswith(b"\r") else b""
        looked_at = looked_at[: len(looked_at) - len(self._cr)]
        self.look_for_bare_newlines(looked_at)
        self.measure_lines(looked_at)
        return text, None if self._left else data[len(text) :]

    def end(self) -> None:
        """No chunk follows."""
        if self._cr:
            self.bare_newline = True


def _longest_line(data: bytes) -> int:
    return max(map(len, data.split(b"\n")))


class SpoolError(Exception):
    """The spool could not take the message: disk full, folder gone."""


class Content:
    """The bytes of one message: in memory up to a limit, beyond it in an unnamed temporary file.

    ``run`` runs a function in a thread and returns a Deferred (a file is never touched on the reactor). The
    bytes are those received, dot-stuffing undone. Call :meth:`close` when done.
    """

    __slots__ = (
        "_chunks",
        "_closed",
        "_digest",
        "_directory",
        "_file",
        "_lock",
        "_memory_limit",
        "_pending",
        "_run",
        "_writing",
        "error",
        "size",
    )

    def __init__(
        self, directory: Path, run: Callable[..., Deferred[Any]], memory_limit: int = 256 * KIB
    ) -> None:
        self._directory = directory
        self._run = run
        self._memory_limit = memory_limit
        self._chunks: list[bytes] = []
        self._pending = 0
        self._closed = False
        self._file: IO[bytes] | None = None
        # A descriptor closed while a thread reads from it would be the next connection's: threads take turns
        self._lock = threading.Lock()
        self._writing: Deferred[None] | None = None
        self._digest = hashlib.sha256()
        self.size = 0
        """Octets taken so far."""
        self.error: Exception | None = None

    @property
    def spooled(self) -> bool:
        """Whether the content is (partly) in a file."""
        return self._file is not None or self._writing is not None

    @property
    def backlog(self) -> int:
        """Octets in memory; above twice the memory limit the sender should be paused."""
        return self._pending

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take the next bytes. A Deferred means: wait for it before sending more."""
        self.size += len(data)
        if self.error is not None:
            return None
        self._chunks.append(data)
        if len(self._chunks) > PIECES:
            self._chunks = [b"".join(self._chunks)]
        self._pending += len(data)
        if self._pending > self._memory_limit and self._writing is None:
            return self._spool()
        return self._writing if self._pending > 2 * self._memory_limit else None

    async def finish(self) -> bytes:
        """Wait until everything is kept; returns the SHA-256 digest.

        Raises :exc:`SpoolError`.
        """
        if self._writing is not None:
            await _fired(self._writing)
        if self._file is not None and self._chunks:
            await _fired(self._spool())
        if self.error is not None:
            raise SpoolError(str(self.error)) from self.error
        if self._file is None:
            for chunk in self._chunks:
                self._digest.update(chunk)
        return self._digest.digest()

    def memory(self) -> bytes | None:
        """The whole content if it is in memory, else ``None``. Raises :exc:`SpoolError` once it is closed."""
        if self._closed:
            # Who was given up and still tries must not store nothing in its place
            raise SpoolError("the content was let go")
        if self._file is not None:
            return None
        if len(self._chunks) != 1:
            self._chunks = [b"".join(self._chunks)]
        return self._chunks[0]

    def map(self) -> bytes | mmap.mmap:
        """The whole content as one buffer; to be used in a thread, for a spooled one is read as it is looked
        at."""
        whole = self.memory()
        if whole is not None:
            return whole
        with self._lock:
            # It has a descriptor of its own, which outlives ours
            return mmap.mmap(self._descriptor(), 0, access=mmap.ACCESS_READ)

    def parts(self, size: int) -> Iterator[bytes]:
        """The content in parts of ``size`` octets; a spooled one only in a thread."""
        whole = self.memory()
        if whole is not None:
            for start in range(0, len(whole), size):
                yield whole[start : start + size]
            return
        for start in range(0, self.size, size):
            with self._lock:
                part = os.pread(self._descriptor(), size, start)
            yield part

    def close(self) -> None:
        """Let go of memory and file."""
        self._closed = True
        self._chunks = []
        self._pending = 0
        if self._file is not None and self._writing is None:
            # Freeing the blocks of a large file takes a while
            self._run(self._close_file)

    def _descriptor(self) -> int:
        if self._file is None:
            raise SpoolError("the content was let go")
        return self._file.fileno()

    def _close_file(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _spool(self) -> Deferred[None]:
        chunks, self._chunks = self._chunks, []
        settled: Deferred[None] = Deferred()
        self._writing = settled
        self._run(self._write_file, chunks).addErrback(self._failed).addBoth(self._written, settled)
        return settled

    def _write_file(self, chunks: list[bytes]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - close() does
        for chunk in chunks:
            self._digest.update(chunk)
        data = memoryview(b"".join(chunks))
        while data:
            data = data[self._file.write(data) :]

    def _failed(self, failure: Any) -> None:
        self.error = failure.value
        log.error(
            "The spool {folder} cannot take a message: {why}", folder=self._directory, why=failure.value
        )

    def _written(self, _: object, settled: Deferred[None]) -> None:
        self._writing = None
        self._pending = sum(map(len, self._chunks)) if self.error is None else 0
        if self._closed:
            self.close()
        settled.callback(None)


async def _fired(writing: Deferred[None]) -> None:
    """Wait for a Deferred that others wait for too: whoever is cancelled does not take it from them."""
    waiting: Deferred[None] = Deferred()
    writing.addCallback(waiting.callback)
    await waiting
