"""How many messages a second are durably accepted over the MX, beside Postfix on the same machine in the same
run.

    python -m tests.bench.accept [--rounds N] [--messages N] [--case NAME …]

Each case is run alternately on both; the table shows medians and their ratio. Needs Debian's ``postfix`` (for
Postfix itself and for ``smtp-source``) and root. Numbers of one machine, one run; compare within a table
only.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.postfix import Postfix
from tests.bench.relaymail import Relaymail
from tests.support.ports import free_port


@dataclass(frozen=True)
class Case:
    """One way of sending. ``share``: of the messages of a 4 KB case, so that every case takes about as
    long."""

    name: str
    connections: int
    octets: int
    reuse: bool
    share: float = 1.0


CASES = (
    Case("20 connections, reused", 20, 4096, True),
    Case("20 connections, one message each", 20, 4096, False),
    Case("100 connections, reused", 100, 4096, True),
    Case("1 connection, reused", 1, 4096, True, 0.25),
    Case("100 KB, 20 connections, reused", 20, 102400, True, 0.25),
)


def send(case: Case, port: int, messages: int) -> float:
    """Messages per second."""
    command = ["smtp-source", "-s", str(case.connections), "-m", str(messages), "-l", str(case.octets)]
    if case.reuse:
        command.append("-d")
    command += ["-f", "sender@example.org", "-t", "demo@example.test", f"127.0.0.1:{port}"]
    began = time.monotonic()
    subprocess.run(command, check=True)
    return messages / (time.monotonic() - began)


def measure(case: Case, ours: Relaymail, peer: Postfix, rounds: int, messages: int) -> str:
    """Alternate between the two and return the row of the table."""
    rates: dict[str, list[float]] = {ours.name: [], peer.name: []}
    host_cpu = postgres_cpu = 0.0
    count = max(int(messages * case.share), case.connections)
    send(case, ours.port, count // 4 or 1)
    send(case, peer.port, count // 4 or 1)
    for turn in range(rounds):
        for server in (ours, peer) if turn % 2 == 0 else (peer, ours):
            before = ours.cpu()
            rates[server.name].append(send(case, server.port, count))
            if server is ours:
                after = ours.cpu()
                host_cpu += after[0] - before[0]
                postgres_cpu += after[1] - before[1]
    a, b = (statistics.median(rates[name]) for name in (ours.name, peer.name))
    spread = [f"{min(r):.0f}–{max(r):.0f}" for r in rates.values()]
    cost = f"{host_cpu / rounds / count * 1e6:.0f} + {postgres_cpu / rounds / count * 1e6:.0f}"
    return f"| {case.name} | {a:.0f} ({spread[0]}) | {b:.0f} ({spread[1]}) | {a / b:.2f} | {cost} |"


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case on each side (default 5)")
    parser.add_argument("--messages", type=int, default=4000, help="messages of a 4 KB case (default 4000)")
    parser.add_argument("--case", type=int, action="append", help="only these rows, from 1")
    options = parser.parse_args()
    if shutil.which("smtp-source") is None:
        raise SystemExit("smtp-source is missing (Debian: apt-get install --no-install-recommends postfix)")
    cases = [CASES[n - 1] for n in options.case] if options.case else list(CASES)
    with tempfile.TemporaryDirectory(prefix="relaymail-bench-") as folder:
        ours = Relaymail(Path(folder) / "relaymail", free_port())
        peer = Postfix(Path(folder) / "postfix", free_port())
        Path(folder).chmod(0o755)
        (Path(folder) / "postfix").mkdir()
        ours.start()
        try:
            peer.start()
            try:
                print("| case | relaymail, messages/s | Postfix, messages/s | ratio | CPU µs/message |")
                print("|---|---|---|---|---|")
                for case in cases:
                    print(measure(case, ours, peer, options.rounds, options.messages), flush=True)
            finally:
                peer.stop()
        finally:
            ours.stop()


if __name__ == "__main__":
    main()
