"""What idle and slow clients cost: the normal sender's speed, and the host's memory.

    python -m tests.bench.slow [--rounds N] [--messages N] [--only {speed,memory}]

Speed: messages a second of a normal sender, alternately alone and beside 2,000 idle sessions and 500 senders
of one octet a second, and the host's CPU, which other work on the machine changes less. The crowd is a
process of its own on the same machine, so its CPU is part of the loss. Memory: resident octets of the host
before and after 1,000 sessions open, beside others that fill what is free in its heap. Needs Debian's
``postfix`` for ``smtp-source``. Numbers of one machine, one run.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.accept import CASES, send
from tests.bench.crowd import Crowd, gathered
from tests.bench.relaymail import Relaymail
from tests.support.ports import free_port

IDLE: Final = 2000
SLOW: Final = 500
SESSIONS: Final = 1000
"""Opened to see what one costs."""
WARM_UP: Final = 500
"""Open before that and beside them: what is made once is none of a session's."""
SETTINGS: Final = {
    "Smtp__Limits__Connections": "0",
    "Smtp__Limits__ConnectionsPerClient": "0",
    "Smtp__Timeouts__Command": "3600",
    "Smtp__Timeouts__DataIdle": "3600",
    "Smtp__Timeouts__DataMinimumRate": "0",
}
CEILINGS: Final = {"": 25, "starttls": 60, "implicit": 60}
"""KB a session may cost."""


@dataclass(frozen=True)
class Run:
    """Messages per second, and microseconds of the host's CPU for each."""

    rate: float
    cpu: float


@contextlib.contextmanager
def host() -> Iterator[Relaymail]:
    """A host of this command's own, gone with the block."""
    with tempfile.TemporaryDirectory(prefix="relaymail-bench-") as folder:
        ours = Relaymail(Path(folder) / "relaymail", free_port(), secure_port=free_port(), settings=SETTINGS)
        Path(folder).chmod(0o755)
        ours.start()
        try:
            yield ours
        finally:
            ours.stop()


def speed(rounds: int, messages: int) -> None:
    """Print the table of speeds."""
    print(f"| case | | alone | beside {IDLE} idle, {SLOW} slow | loss, pair by pair |")
    print("|---|---|---|---|---|")
    case = CASES[0]
    alone: list[Run] = []
    beside: list[Run] = []
    with host() as ours:
        send(case, ours.port, messages // 4)
        for turn in range(rounds):
            for crowded in (False, True) if turn % 2 == 0 else (True, False):
                with gathered(Crowd(ours.port, IDLE, SLOW)) if crowded else contextlib.nullcontext():
                    (beside if crowded else alone).append(_run(ours, messages))
    pairs = list(zip(alone, beside, strict=True))
    slower = [1 - with_them.rate / without.rate for without, with_them in pairs]
    dearer = [with_them.cpu / without.cpu - 1 for without, with_them in pairs]
    print(
        f"| {case.name} | messages/s | {_spread([run.rate for run in alone])} |"
        f" {_spread([run.rate for run in beside])} | {100 * statistics.median(slower):.1f} % |"
    )
    print(
        f"| | CPU of the host, µs/message | {_spread([run.cpu for run in alone])} |"
        f" {_spread([run.cpu for run in beside])} | {100 * statistics.median(dearer):.1f} % |",
        flush=True,
    )


def _run(ours: Relaymail, messages: int) -> Run:
    before = ours.cpu()[0]
    rate = send(CASES[0], ours.port, messages)
    return Run(rate, (ours.cpu()[0] - before) / messages * 1e6)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f}–{max(values):.0f})"


def memory() -> None:
    """Print the table of memory."""
    print("| session | KB each | may be | KB each once more, behind as many others |")
    print("|---|---|---|---|")
    for tls, name in (("", "plaintext, EHLO said"), ("starttls", "STARTTLS"), ("implicit", "implicit TLS")):
        with host() as ours:
            port = ours.secure_port if tls == "implicit" else ours.port
            few, many = Crowd(port, WARM_UP, tls=tls), Crowd(port, SESSIONS, tls=tls)
            with gathered(few):
                before = settled(ours)
                with gathered(many):
                    first = settled(ours)
                with gathered(many):
                    second = settled(ours)
        each, again = ((octets - before) / SESSIONS / 1000 for octets in (first, second))
        print(f"| {name} | {each:.1f} | {CEILINGS[tls]} | {again:.1f} |", flush=True)


def settled(ours: Relaymail) -> int:
    """Memory once it has stopped changing."""
    last = -1
    while (now := ours.memory()) != last:
        last = now
        time.sleep(0.5)
    return last


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs with and without (default 5)")
    parser.add_argument("--messages", type=int, default=4000, help="messages of a run (default 4000)")
    parser.add_argument("--only", choices=("speed", "memory"), help="one of the two tables")
    options = parser.parse_args()
    if shutil.which("smtp-source") is None:
        raise SystemExit("smtp-source is missing (Debian: apt-get install --no-install-recommends postfix)")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before\n")
    if options.only != "memory":
        speed(options.rounds, options.messages)
        print()
    if options.only != "speed":
        memory()
    print(f"\nload {os.getloadavg()[0]:.2f} behind")


if __name__ == "__main__":
    main()
