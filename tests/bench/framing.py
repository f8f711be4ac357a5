"""What input costs that is made to cost much: processor time and memory of one session, for n and 2n.

    python -m tests.bench.framing [NAME …]

Each run has a process of its own and goes over the transport in memory, in packets of 64 KiB as the reactor
reads them. Time is what the engine took, not the making of the input; memory what the process grew by at its
largest. The last column is the time for 2n over that for n: 2 is linear, 4 quadratic. Where a limit would
close the session it is lifted; a message over 50 MiB is read to its end and refused. Input that the engine
does not read (it pauses the transport) is not sent.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred

from relaymail.smtp.policy import Limits, Policy
from tests.corpus.measure import memory
from tests.smtp.memory import Conversation

MIB: Final = 1024 * 1024
PACKET: Final = 64 * 1024
MANY: Final = 10**9
ENVELOPE: Final = b"EHLO client.example.org\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.test>\r\n"
POLICY: Final = Policy(
    "mx",
    "mx.example.test",
    strict_newlines=True,
    limits=Limits(
        message=50 * MIB,
        errors=MANY,
        free_errors=MANY,
        junk_commands=MANY,
        messages=MANY,
        text_line=64 * 1024,
    ),
)

Pieces = Iterator[bytes]


@dataclass(frozen=True)
class Case:
    """One kind of input. ``make`` gives the bytes for n; ``large`` is 2n."""

    name: str
    large: int
    unit: str
    opening: bytes
    make: Callable[[int], Pieces]
    packet: int = PACKET
    late: bool = False
    """The first command is being decided all the while."""
    closing: bytes = b""


def repeated(piece: bytes) -> Callable[[int], Pieces]:
    """``piece`` n times."""

    def make(count: int) -> Pieces:
        whole = max(PACKET // len(piece), 1)
        for _ in range(count // whole):
            yield piece * whole
        yield piece * (count % whole)

    return make


def numbered(piece: bytes) -> Callable[[int], Pieces]:
    """``piece`` with every number below n."""

    def make(count: int) -> Pieces:
        for at in range(0, count, 1000):
            yield b"".join([piece % n for n in range(at, min(at + 1000, count))])

    return make


DATA: Final = ENVELOPE + b"DATA\r\n"
END: Final = b"\r\n.\r\n"
LAST: Final = b"BDAT 0 LAST\r\n"
RECIPIENT: Final = b"RCPT TO:<u%d@example.test>\r\n"
X: Final = repeated(b"x")
CASES: Final = (
    Case("a command line without an end", 64 * MIB, "octets", b"", X),
    Case("the same, octet by octet", MIB, "octets", b"", X, packet=1),
    Case("a line of DATA without an end", 64 * MIB, "octets", DATA, X, closing=END),
    Case("the same, octet by octet", MIB, "octets", DATA, X, packet=1, closing=END),
    Case("a line of dots in DATA", 50 * MIB - 4, "octets", DATA, repeated(b"."), closing=END),
    Case("empty lines as commands", 10**6, "lines", b"", repeated(b"\r\n")),
    Case("empty lines in DATA", 10**6, "lines", DATA, repeated(b"\r\n"), closing=END),
    Case("bare LFs in DATA", 10**6, "lines", DATA, repeated(b"\n"), closing=END),
    Case("stuffed dots in DATA", 10**6, "lines", DATA, repeated(b"..\r\n"), closing=END),
    Case("almost the end of DATA", 10**6, "times", DATA, repeated(b"\r\n.\r"), closing=END),
    Case("recipients", 10**5, "commands", ENVELOPE, numbered(RECIPIENT)),
    Case("NOOP", 10**6, "commands", b"", repeated(b"NOOP\r\n")),
    Case("messages of one line", 40_000, "messages", b"", repeated(DATA + b"x\r\n.\r\n")),
    Case("chunks of three octets", 200_000, "chunks", ENVELOPE, repeated(b"BDAT 3\r\nx\r\n"), closing=LAST),
    Case("a chunk of 2^63 octets", 64 * MIB, "octets", ENVELOPE + b"BDAT 9223372036854775808\r\n", X),
    Case("a refused chunk", 64 * MIB, "octets", b"EHLO x\r\nBDAT %d\r\n" % (64 * MIB), X),
    Case("commands behind one being decided", 10**5, "commands", ENVELOPE, repeated(b"NOOP\r\n"), late=True),
    Case("the same, octet by octet", 10**5, "octets", ENVELOPE, X, packet=1, late=True),
)


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    seconds: float
    memory: int
    """Octets."""
    sent: int
    """Octets that the engine read."""
    answer: str
    """The last reply."""


def run(case: Case, count: int) -> Cost:
    """Send a case and measure; in a process that has done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        talk = Conversation(POLICY, Path(folder))
        if case.late:
            talk.session.late = Deferred
        talk.send(case.opening)
        answer = talk.received()
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        seconds, sent = 0.0, 0
        for packet in _packets(case, count):
            if talk.closing or talk.transport.producerState == "paused":
                break
            began = time.process_time()
            talk.send(packet)
            seconds += time.process_time() - began
            sent += len(packet)
            answer = talk.received()[-200:] or answer
            talk.counter.codes.clear()
            talk.session.messages.clear()
        last = answer.decode().splitlines()[-1]
        return Cost(seconds, max(memory("VmHWM") - before, 0), sent, last)


def _packets(case: Case, count: int) -> Iterator[bytes]:
    held = b""
    for piece in chain(case.make(count), [case.closing]):
        held += piece
        whole = len(held) - len(held) % case.packet
        for at in range(0, whole, case.packet):
            yield held[at : at + case.packet]
        held = held[whole:]
    if held:
        yield held


def measure(case: Case, count: int) -> Cost:
    """The same, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(astuple(run(case, count))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    if not told:
        raise RuntimeError(f"{case.name}: the process died of it")
    return Cost(*json.loads(told))


def main() -> None:
    """Print the table."""
    print(f"{'':55} {'n':^12} {'2n':^12}")
    print(f"{'input':34} {'n':>11} {'unit':8} {'s':>6} {'MiB':>5} {'s':>6} {'MiB':>5} 2n/n  last reply")
    for case in CASES:
        if sys.argv[1:] and case.name not in sys.argv[1:]:
            continue
        one, two = measure(case, case.large // 2), measure(case, case.large)
        compared = two.sent > 1.5 * one.sent and one.seconds > 0.005
        print(
            f"{case.name:34} {case.large // 2:11,} {case.unit:8}"
            f" {one.seconds:6.3f} {one.memory / MIB:5.1f} {two.seconds:6.3f} {two.memory / MIB:5.1f}"
            f" {f'{two.seconds / one.seconds:4.1f}' if compared else '   -'}  {two.answer}"
        )


if __name__ == "__main__":
    main()
