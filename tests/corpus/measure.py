"""What each message of the corpus costs to be read: processor time and memory.

    python -m tests.corpus.measure [NAME …]

prints a table. Every message is read in full: the columns, and the bytes of each attachment. Memory is what
the process grew by at its largest, the message itself not counted.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from relaymail.message.summary import summarize
from tests.corpus.cases import small
from tests.corpus.large import LARGE

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Cost:
    """What reading a message took."""

    name: str
    octets: int
    seconds: float
    """Of processor time."""
    memory: int
    """Octets."""


def measure(names: Iterable[str]) -> Iterator[Cost]:
    """The cost of each message, as they come."""
    files = small()
    for name in names:
        if name in files:
            yield _read(name, files[name]().raw)
        else:
            yield _apart(name)


def _apart(name: str) -> Cost:
    """Read a large message in a process of its own, so that nothing of another one is left over."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(astuple(_read(name, LARGE[name]().raw))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise RuntimeError(f"the process that read {name} died of it")
    return Cost(*json.loads(told))


def _read(name: str, raw: bytes) -> Cost:
    # From here on the largest size is counted anew
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    began = time.process_time()
    summary = summarize(raw)
    for attachment in summary.attachments:
        for piece in attachment.decode(raw):
            del piece
    seconds = time.process_time() - began
    return Cost(name, len(raw), seconds, max(memory("VmHWM") - before, 0))


def memory(what: str) -> int:
    """Octets of memory: ``VmRSS`` is what this process has, ``VmHWM`` the most it has had."""
    found = re.search(rf"^{what}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Print the table."""
    names = sys.argv[1:] or [*small(), *LARGE]
    print(f"{'message':52} {'size':>12} {'seconds':>8} {'memory':>10}")
    for cost in measure(names):
        print(f"{cost.name:52} {cost.octets:12,} {cost.seconds:8.3f} {cost.memory / MIB:6.1f} MiB")


if __name__ == "__main__":
    main()
