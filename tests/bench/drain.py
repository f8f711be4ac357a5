"""How many queued messages a second are sent on, beside Postfix on the same machine, in the same run.

    python -m tests.bench.drain [--rounds N] [--messages N] [--only drain|hole]

Both have messages of 4 KB in their queues, spread over 50 domains, each with a mail host of its own, which
are addresses on loopback where one ``smtp-sink`` listens. Both send over 50 connections at most, 10 to a
domain. We ask a name server for the way, Postfix has a transport map. The clock runs from the first message
at the sink to the last. Needs Debian's ``postfix`` (for Postfix itself and for ``smtp-sink``) and root.
Numbers of one machine, one run; compare within a table only.

The second table is about one domain of 100,000 queued recipients whose host does not answer: what it costs
the others. Two hosts, of which one has those in its queue from the beginning, drain the same by turns; the
first drain of each is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import psycopg2

from tests.bench.postfix import SendingPostfix
from tests.bench.queued import Fill, fill
from tests.bench.relaymail import Relaymail
from tests.support.dns_server import ThreadedDNSServer
from tests.support.ports import free_port

DOMAINS: Final = 50
CONCURRENCY: Final = 50
PER_DOMAIN: Final = 10
OCTETS: Final = 4096
HOLE: Final = "hole.test"
HOLE_ADDRESS: Final = "127.0.2.1"
HOLE_ROWS: Final = 100_000
LIMIT: Final = 180.0
"""Seconds for one drain."""
NAME: Final = "relay.sender.test"


def domain(n: int) -> str:
    """One of the domains."""
    return f"d{n}.test"


def address(n: int) -> str:
    """Of its mail host."""
    return f"127.0.1.{n + 1}"


class Sink:
    """``smtp-sink``, with a count of what it has taken and when."""

    def __init__(self) -> None:
        self.port = free_port()
        command = ["smtp-sink", "-c", "-u", "nobody", f":{self.port}", "1000"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._counts: list[tuple[float, int]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 65536):
            if found := re.findall(rb"mesg=(\d+)", data):
                self._counts.append((time.monotonic(), int(found[-1])))

    @property
    def count(self) -> int:
        """Messages taken so far."""
        return self._counts[-1][1] if self._counts else 0

    def rate(self, before: int, messages: int) -> float:
        """Wait for so many messages behind the first ``before``; how many came a second."""
        end = time.monotonic() + LIMIT
        while self.count < before + messages:
            if time.monotonic() > end:
                raise SystemExit(f"only {self.count - before} of {messages} came within {LIMIT:g} s")
            time.sleep(0.02)
        own = [(at, count - before) for at, count in list(self._counts) if count > before]
        (began, first), (ended, last) = own[0], own[-1]
        return (last - first) / (ended - began)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


class Ours:
    """Our host, its queue and its name server."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        self._dns = ThreadedDNSServer()
        for n in range(DOMAINS):
            self._dns.zones.set(domain(n), "MX", f"10 mx.{domain(n)}.", ttl=3600)
            self._dns.zones.set(f"mx.{domain(n)}", "A", address(n), ttl=3600)
        self._dns.zones.set(HOLE, "MX", f"10 mx.{HOLE}.", ttl=3600)
        self._dns.zones.set(f"mx.{HOLE}", "A", HOLE_ADDRESS, ttl=3600)
        self._dns.start()
        self.settings = {
            "OutboundMail__SenderDomain": NAME,
            "OutboundMail__MaxConcurrency": str(CONCURRENCY),
            "OutboundMail__Port": str(sink.port),
            "Dns__Servers__0": self._dns.address,
            "Logging__LogLevel__Default": "Warning",
        }
        self.host = Relaymail(folder, free_port(), settings=self.settings)
        self.idle = Relaymail(
            folder, free_port(), settings={**self.settings, "OutboundMail__Enabled": "false"}
        )

    def fill(self, fills: Sequence[Fill]) -> None:
        """Queue messages, with nobody there who would send them, and let the database come to rest."""
        self.idle.start()
        fill(self.idle.url(), fills)
        with contextlib.closing(psycopg2.connect(self.idle.url())) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
        self.idle.stop()

    def drain(self, sink: Sink, messages: int) -> tuple[float, float, float]:
        """Queue messages and send them: how many a second, and microseconds of CPU for each, the host's and
        PostgreSQL's."""
        self.fill([Fill(domain(n), messages // DOMAINS, OCTETS) for n in range(DOMAINS)])
        before = sink.count
        self.host.start()
        used = self.host.cpu()
        rate = sink.rate(before, messages)
        now = self.host.cpu()
        self.host.stop()
        return rate, (now[0] - used[0]) / messages * 1e6, (now[1] - used[1]) / messages * 1e6

    def close(self) -> None:
        """Let go of the name server."""
        self._dns.stop()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """A host that does not answer: nothing that is sent to its address ever comes back."""
    rule = ["-d", HOLE_ADDRESS, "-p", "tcp", "--syn", "-j", "DROP"]
    if shutil.which("iptables") is None:
        raise SystemExit("iptables is missing (Debian: apt-get install --no-install-recommends iptables)")
    subprocess.run(["iptables", "-I", "INPUT", *rule], check=True)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-D", "INPUT", *rule], check=True)


def run_postfix(folder: Path, sink: Sink, messages: int) -> float:
    """Messages a second."""
    routes = {domain(n): f"[{address(n)}]:{sink.port}" for n in range(DOMAINS)}
    peer = SendingPostfix(folder, free_port(), routes, CONCURRENCY, PER_DOMAIN)
    peer.start()
    try:
        peer.fill(messages, OCTETS)
        before = sink.count
        peer.send()
        return sink.rate(before, messages)
    finally:
        peer.stop()


def drain(base: Path, sink: Sink, rounds: int, messages: int) -> None:
    """Print the first table."""
    rates: dict[str, list[float]] = {"relaymail": [], "Postfix": []}
    host_cpu, postgres_cpu = [], []
    for turn in range(rounds):
        for name in ("relaymail", "Postfix") if turn % 2 == 0 else ("Postfix", "relaymail"):
            folder = base / f"{name}-{turn}"
            if name == "relaymail":
                with contextlib.closing(Ours(folder, sink)) as ours:
                    rate, host, postgres = ours.drain(sink, messages)
                host_cpu.append(host)
                postgres_cpu.append(postgres)
            else:
                folder.mkdir()
                rate = run_postfix(folder, sink, messages)
            rates[name].append(rate)
    mine, peer = (statistics.median(rates[name]) for name in ("relaymail", "Postfix"))
    shown = [f"{statistics.median(one):.0f} ({min(one):.0f}–{max(one):.0f})" for one in rates.values()]
    print("| queue | relaymail, messages/s | Postfix, messages/s | ratio | CPU µs/message |")
    print("|---|---|---|---|---|")
    cost = f"{statistics.median(host_cpu):.0f} + {statistics.median(postgres_cpu):.0f}"
    print(
        f"| {messages} of {OCTETS // 1024} KB for {DOMAINS} domains | {shown[0]} | {shown[1]}"
        f" | {mine / peer:.2f} | {cost} |",
        flush=True,
    )


def hole(base: Path, sink: Sink, rounds: int, messages: int) -> None:
    """Print the second table."""
    alone: list[tuple[float, float, float]] = []
    beside: list[tuple[float, float, float]] = []
    with (
        silence(),
        contextlib.closing(Ours(base / "alone", sink)) as without,
        contextlib.closing(Ours(base / "beside", sink)) as with_hole,
    ):
        # Many recipients to a message: it is the rows of the queue that count
        with_hole.fill([Fill(HOLE, HOLE_ROWS, OCTETS, 100)])
        for turn in range(rounds + 1):
            pair = [(without, alone), (with_hole, beside)]
            for ours, results in pair if turn % 2 == 0 else reversed(pair):
                results.append(ours.drain(sink, messages))
    del alone[0], beside[0]
    loss = statistics.median(1 - b[0] / a[0] for a, b in zip(alone, beside, strict=True))
    print(f"| {messages} for {DOMAINS} domains | messages/s | CPU µs/message |")
    print("|---|---|---|")
    for name, results in (("alone", alone), (f"beside {HOLE_ROWS} rows for a silent host", beside)):
        rates, host, postgres = zip(*results, strict=True)
        print(
            f"| {name} | {statistics.median(rates):.0f} ({min(rates):.0f}–{max(rates):.0f})"
            f" | {statistics.median(host):.0f} + {statistics.median(postgres):.0f} |"
        )
    print(f"\nLoss, median of {rounds} pairs: {100 * loss:.1f} %", flush=True)


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--messages", type=int, default=10_000, help="messages of a run (default 10000)")
    parser.add_argument("--only", choices=("drain", "hole"), help="one of the two tables")
    options = parser.parse_args()
    if shutil.which("smtp-sink") is None:
        raise SystemExit("smtp-sink is missing (Debian: apt-get install --no-install-recommends postfix)")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before\n")
    sink = Sink()
    with tempfile.TemporaryDirectory(prefix="relaymail-bench-") as name:
        base = Path(name)
        base.chmod(0o755)
        try:
            if options.only != "hole":
                drain(base, sink, options.rounds, options.messages)
                print()
            if options.only != "drain":
                hole(base, sink, options.rounds, options.messages)
        finally:
            sink.stop()
    print(f"\nload {os.getloadavg()[0]:.2f} behind")


if __name__ == "__main__":
    main()
