"""A real Prometheus, of Debian's package, with a folder and a port of its own."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.interop.programs import program
from tests.packaging.program import Program, running
from tests.support.polling import until
from tests.support.ports import free_port

Series = tuple[dict[str, str], list[float]]


class Prometheus:
    """One that runs."""

    def __init__(self, port: int, process: Program) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._process = process

    def ask(self, path: str, **arguments: str) -> Any:
        """The ``data`` of an answer of its API.

        :raises AssertionError: it says that something is wrong, or warns.
        """
        query = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as answer:
                told = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode(errors='replace')}") from None
        assert told["status"] == "success", (arguments, told)
        assert not told.get("warnings"), (arguments, told)
        return told["data"]

    def over_time(self, expression: str, seconds: int = 60) -> list[Series]:
        """What a graph of the last ``seconds`` would show: labels, and values that are numbers."""
        now = time.time()
        data = self.ask("query_range", query=expression, start=f"{now - seconds}", end=f"{now}", step="1")
        found = [
            (
                series["metric"],
                [number for _, text in series["values"] if not math.isnan(number := float(text))],
            )
            for series in data["result"]
        ]
        return [(labels, values) for labels, values in found if values]

    def now(self, expression: str) -> float | None:
        """The value of an expression with one series; ``None`` where there is none."""
        result = self.ask("query", query=expression)["result"]
        return float(result[0]["value"][1]) if result else None

    def answers(self) -> bool:
        """Whether it is ready."""
        assert self._process.process.poll() is None, self._process.output
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def watching(target: str, rules: Path, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that reads the metrics of ``target`` every second, as the documentation has it do."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "relaymail", "static_configs": [{"targets": [target]}]}],
    }
    # JSON is YAML
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "prometheus.log", {}) as process:
        prometheus = Prometheus(port, process)
        until(prometheus.answers, 30.0, lambda: process.output)
        yield prometheus
