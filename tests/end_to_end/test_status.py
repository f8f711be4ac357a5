"""What an operator sees of a running host: health, page, metrics, traces, log, and the ids that join them."""

from __future__ import annotations

import gzip
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.api import Api
from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.support.polling import LIMIT, until
from tests.support.postgres import PostgresServer

SECRET = "the words of a letter"


class Collector:
    """An OpenTelemetry collector that keeps spans."""

    def __init__(self) -> None:
        self.spans: dict[str, Any] = {}
        self.metrics = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                else:
                    collector.metrics += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, export: ExportTraceServiceRequest) -> None:
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                self.spans.update((span.name, span) for span in scope.spans)

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    made = Collector()
    yield made
    made.stop()


@pytest.fixture
def own_api() -> Iterator[Api]:
    """An API of the test's own."""
    api = Api()
    yield api
    api.going.set()
    api.stop()


def get(host: Host, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    """Code, content type and body."""
    url = f"http://127.0.0.1:{host.ports.health}{path}"
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as response:
            return response.status, response.headers["Content-Type"], response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def samples(host: Host) -> dict[tuple[str, tuple[str, ...]], float]:
    """The metrics by name and values of labels."""
    _, _, body = get(host, "/metrics")
    return {
        (
            sample.name.removeprefix("relaymail_"),
            tuple(value for _, value in sorted(sample.labels.items())),
        ): (sample.value)
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def lines(host: Host, word: str) -> list[dict[str, Any]]:
    """The entries of a log in JSON whose message has ``word``."""
    entries = [json.loads(line) for line in host.log.splitlines() if line.startswith("{")]
    return [entry for entry in entries if word in entry["message"]]


def test_one_message_can_be_followed_by_its_ids_through_log_traces_metrics_and_api(
    new_host: MakeHost, database_parameters: dict[str, str], own_api: Api, collector: Collector
) -> None:
    host = new_host(
        {
            "Api__BaseUrl": own_api.url,
            "Internal__ApiKey": "the-key-of-the-api",
            "Otel__Endpoint": collector.url,
            "Otel__TracedPercent": "100",
            "Logging__Format": "json",
            "Logging__LogLevel__Default": "Debug",
        },
        database=database_parameters,
    )
    host.start()
    user: User = host.user()
    with host.submission(user) as wire:
        wire.envelope(user.address, user.address)
        answer = wire.data(message(f"To: {user.address}", body=f"{SECRET}\r\n", sender=user.address))
        wire.command("QUIT")
    email = str(host.email(answer.id))
    own_api.until_told(email)
    until(lambda: bool(lines(host, "ended")) and bool(lines(host, "Notification")))

    (accepted,) = lines(host, "accepted")
    assert accepted["id"] == answer.id
    (ended,) = lines(host, "ended")
    assert ended["session"] == accepted["session"]
    facts = {"listener": "submission", "client": "127.0.0.1", "login": user.address, "end": "quit"}
    assert {name: ended[name] for name in facts} == facts
    assert (ended["messages"], ended["recipients"], ended["errors"]) == (1, 1, 0)
    assert ended["bytes"] > 100
    assert ended["tls"].startswith("TLSv1.3 ")
    (notified,) = lines(host, "Notification")
    assert (notified["id"], notified["email"]) == (answer.id, email)
    for secret in (SECRET, user.key, "the-key-of-the-api"):
        assert secret not in host.log

    found = samples(host)
    assert found["smtp_messages_received_total", ("submission",)] == 1
    assert found["smtp_sessions_total", ("quit", "submission", "TLSv1.3")] == 1
    assert found["smtp_commands_total", ("MAIL",)] == 1
    assert found["smtp_auth_attempts_total", ("submission",)] == 1
    assert found["store_batch_size_count", ()] == 1
    assert found["notifications_total", ("sent",)] == 1
    assert found["health_check_status", ("database",)] == 0
    until(lambda: ("outbox_rows", ("pending",)) in samples(host))
    assert found["tls_certificate_not_after_timestamp_seconds", ()] > time.time()
    assert found["reactor_lag_seconds_count", ()] > 0

    _, kind, page = get(host, "/", "text/html")
    assert kind == "text/html; charset=utf-8"
    assert host.environment().get("Smtp__ServerName", "relaymail.example.test") in page
    assert "database" in page

    (told,) = [request for request in own_api.requests if request.body["email"]["id"] == email]
    assert host.stop() == 0
    assert collector.metrics > 0
    assert sorted(collector.spans) == [
        "smtp.filter.mail_from",
        "smtp.filter.rcpt_to",
        "smtp.message",
        "smtp.message.parse",
        "smtp.message.save",
        "smtp.notify.users",
    ]
    trace = answer.id.replace("-", "")
    assert {span.trace_id.hex() for span in collector.spans.values()} == {trace}
    assert told.traceparent == f"00-{trace}-{collector.spans['smtp.notify.users'].span_id.hex()}-01"


def test_what_hangs_is_told_in_time_and_the_page_waits_for_nothing(
    new_host: MakeHost, database_parameters: dict[str, str], postgres: PostgresServer
) -> None:
    threads = ThreadPoolExecutor(1)
    try:
        host = new_host(
            {"Dns__Servers__0": "192.0.2.1", "HealthCheck__ReadyChecks__0": "database"},
            database=database_parameters,
        )
        host.start()
        until(lambda: "health_check_status" in get(host, "/metrics")[2])
        postgres.freeze()
        ready = threads.submit(get, host, "/healthz/ready")
        code, _, body = get(host, "/healthz")
        assert ready.result()[0] == 503
        report = json.loads(body)
        wrong = {
            check["name"]: check["description"]
            for check in report["checks"]
            if check["status"] == "Unhealthy"
        }
        assert code == 503
        assert wrong["database"] == "PostgreSQL cannot be reached or does not answer"
        assert wrong["dns-mx"].startswith("DNS MX resolution failed (gmail.com: ")
        for path in ("/healthz/live", "/", "/metrics"):
            assert get(host, path)[0] == 200
        page = get(host, "/healthz", "text/html")[2]
        assert "PostgreSQL cannot be reached or does not answer" in page
        assert str(host.data) not in page + body
        postgres.thaw()
        until(lambda: get(host, "/healthz/ready")[0] == 200)
    finally:
        postgres.thaw()
