"""What a claim costs: with few and many rows, with few and many destinations, beside a blocked one.

    python -m tests.bench.claim [--rounds N] [--case NAME …]

A PostgreSQL of its own, its data in memory. Each round claims :data:`BATCH` rows, :data:`SHARE` of a
destination at most, begins to send them and settles them as delivered. Pages are those that a claim looks at
or changes: they say what it costs on any machine. Milliseconds are processor time of PostgreSQL's process,
median and ninth decile; what else the machine does slows them down. Compare within a table only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg2

from relaymail.store.schema import migrations
from tests.support.postgres import PostgresServer

BATCH = 100
SHARE = 20


@dataclass(frozen=True)
class Case:
    """A queue. ``blocked``: rows of one more destination, which cannot be reached; ``waiting``: rows that are
    not due yet, spread over the same destinations."""

    name: str
    rows: int
    destinations: int
    blocked: int = 0
    waiting: int = 0


CASES = (
    Case("10 k rows, 50 destinations", 10_000, 50),
    Case("1 M rows, 50 destinations", 1_000_000, 50),
    Case("10 k rows, 50 destinations, and 100 k blocked", 10_000, 50, blocked=100_000),
    Case("10 k rows, 50 destinations, and 1 M for later", 10_000, 50, waiting=1_000_000),
    Case("10 k rows, 10 k destinations", 10_000, 10_000),
    Case("100 k rows, 100 k destinations", 100_000, 100_000),
    Case("1 M rows, 100 k destinations", 1_000_000, 100_000),
)

MESSAGES = """
INSERT INTO relaymail.message (id, received_at, listener, session_id, client_address, client_name,
    reverse_path, size_bytes, sha256, trace_headers, message_id, from_address, subject, parse_status,
    email_ids)
SELECT ('01990000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now(), 'submission', 'S', '192.0.2.1',
       'c', 'anna@example.test', 4096, '', '', n || '@example.test', 'anna@example.test', 's', 'complete',
       '{}'
  FROM generate_series(%s, %s - 1) AS n
"""
ROWS = """
INSERT INTO relaymail.queue (message_id, n, recipient, destination, due_at)
SELECT ('01990000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 0, 'user' || n || '@' || name, name,
       now() + %s::interval
  FROM (SELECT n, %s || n %% %s || '.example' AS name FROM generate_series(%s, %s - 1) AS n) AS made
"""


class Bench:
    """A database and a connection to it."""

    def __init__(self, server: PostgresServer) -> None:
        self.connection = psycopg2.connect(**server.parameters(server.new_database()))
        self.connection.autocommit = True
        self.cursor: Any = self.connection.cursor()
        self._schedstat = Path(f"/proc/{self.connection.info.backend_pid}/schedstat")
        self.run("CREATE SCHEMA relaymail")
        for migration in migrations():
            self.run(migration.sql)

    def run(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        self.cursor.execute(sql, parameters or None)
        return self.cursor.fetchall() if self.cursor.description else []

    def fill(self, case: Case) -> None:
        """Make the queue of a case."""
        kinds = (
            (case.waiting, "d", case.destinations, "1 hour"),
            (case.blocked, "blocked", 1, "0"),
            (case.rows, "d", case.destinations, "0"),
        )
        first = 0
        for count, name, destinations, due in kinds:
            # A message per row, as their foreign key and their order in the indexes want it
            self.run(MESSAGES, first, first + count)
            self.run(ROWS, due, name, destinations, first, first + count)
            first += count
        if case.blocked:
            self.run(
                "SELECT relaymail.queue_block(destination, 'timed out', '1 hour', '1 hour')"
                " FROM relaymail.queue WHERE destination LIKE 'blocked%' LIMIT 1"
            )
        # In the order in which mail comes: destinations mixed
        self.run(
            "INSERT INTO relaymail.arrival SELECT destination, priority, min(due_at) FROM relaymail.queue"
            " GROUP BY destination, priority ORDER BY random()"
        )
        self.run("VACUUM ANALYZE relaymail.queue")
        self.run("VACUUM ANALYZE relaymail.message")
        # All arrivals become lanes
        for _ in range(case.destinations // 5000 + 1):
            self.run("SELECT relaymail.queue_take_arrivals(5000)")
        self.run("CHECKPOINT")

    def timed(self, sql: str, *parameters: object) -> tuple[float, list[tuple[Any, ...]]]:
        """The server's milliseconds for a statement, and its rows."""
        before = self._nanoseconds()
        rows = self.run(sql, *parameters)
        return (self._nanoseconds() - before) / 1e6, rows

    def _nanoseconds(self) -> int:
        # It counts when the process waits again, which may be a moment behind its answer
        time.sleep(0.002)
        return int(self._schedstat.read_text().split()[0])

    def pages(self) -> int:
        """Pages that PostgreSQL has looked at in this database so far."""
        self.run("SELECT pg_stat_force_next_flush()")
        sql = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        return int(self.run(sql)[0][0])

    def claim(self) -> tuple[float, list[tuple[Any, ...]]]:
        """Claim a batch; the milliseconds, and the rows with their token."""
        token = str(uuid4())
        took, rows = self.timed(
            "SELECT * FROM relaymail.queue_claim(%s, 'bench', interval '2 minutes', %s, %s, '{}')",
            token,
            BATCH,
            SHARE,
        )
        return took, [(*row, token) for row in rows]

    def begin(self, rows: list[tuple[Any, ...]]) -> float:
        """Begin with these rows; the milliseconds."""
        count = len(rows)
        took, begun = self.timed(
            "SELECT relaymail.queue_begin_transfer(%s, %s::uuid[], %s, %s, %s, %s::text[])",
            [row[0] for row in rows],
            [row[-1] for row in rows],
            [row[5] for row in rows],
            ["mx.example.org"] * count,
            ["192.0.2.25:25"] * count,
            [None] * count,
        )
        assert len(begun) == count
        return took

    def settle(self, rows: list[tuple[Any, ...]]) -> float:
        """Settle these rows as delivered; the milliseconds."""
        count = len(rows)
        took, settled = self.timed(
            "SELECT relaymail.queue_settle(%s, %s::uuid[], %s, %s, %s, %s, %s, %s::text[], %s, %s::float8[],"
            " %s::text[], %s, %s::float8[])",
            [row[0] for row in rows],
            [row[-1] for row in rows],
            ["delivered"] * count,
            ["2.0.0"] * count,
            ["250 2.0.0 Ok: queued as 4711"] * count,
            ["mx.example.org"] * count,
            ["192.0.2.25:25"] * count,
            [None] * count,
            ["final-dot"] * count,
            [0.0] * count,
            [None] * count,
            [False] * count,
            [0.1] * count,
        )
        assert len(settled) == count
        return took


def measure(server: PostgresServer, case: Case, rounds: int) -> str:
    """Run a case and return its row of the table."""
    bench = Bench(server)
    bench.fill(case)
    claims: list[float] = []
    begins: list[float] = []
    settles: list[float] = []
    found, pages = 0, []
    for turn in range(rounds + 5):
        before = bench.pages()
        took, rows = bench.claim()
        pages.append(bench.pages() - before)
        began, settled = bench.begin(rows), bench.settle(rows)
        # The first ones make their plans
        if turn >= 5:
            found += len(rows)
            claims.append(took)
            begins.append(began)
            settles.append(settled)
    bench.connection.close()
    cells = " | ".join(figures(values) for values in (claims, begins, settles))
    return f"| {case.name} | {found / rounds:.0f} | {statistics.median(pages[5:]):.0f} | {cells} |"


def figures(values: list[float]) -> str:
    """Median and ninth decile."""
    return f"{statistics.median(values):.2f} ({statistics.quantiles(values, n=10)[-1]:.2f})"


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60, help="claims per case")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="only this one"
    )
    options = parser.parse_args()
    server = PostgresServer()
    try:
        server.start()
        print("| Queue | Rows of a claim | Its pages | Claim, ms | Begin, ms | Settle, ms |")
        print("|---|---|---|---|---|---|", flush=True)
        for case in CASES:
            if not options.case or case.name in options.case:
                print(measure(server, case, options.rounds), flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
