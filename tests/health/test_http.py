"""The health port, from outside."""

from __future__ import annotations

import errno
import json
import socket
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread

from relaymail.health import HealthCheck, HealthMonitor, HealthServer, Result, Status
from tests.conftest import reactor, run_on_reactor
from tests.health.support import Check, fixed, request
from tests.support.ipv6 import IPV6_LOOPBACK, needs_ipv6
from tests.support.polling import LIMIT
from tests.support.waiting import pause, until

HEALTHY = fixed("database", Result(Status.HEALTHY, "PostgreSQL connection is healthy"))
DEGRADED = fixed("certificate", Result(Status.DEGRADED, None, {"daysUntilExpiry": 29, "subject": "CN=é"}))
UNHEALTHY = fixed("dns-mx", Result(Status.UNHEALTHY, "DNS MX resolution failed (gmail.com: SERVFAIL)"))

Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves checks on loopback and returns the URL; ends with the test."""
    running: list[tuple[HealthMonitor, HealthServer]] = []

    def start(*checks: HealthCheck, ready: tuple[str, ...] = ()) -> str:
        monitor = HealthMonitor(checks, ready=ready, clock=reactor)
        server = HealthServer(monitor, "127.0.0.1", 0, reactor=reactor)
        server.start()
        running.append((monitor, server))
        [(host, port)] = server.addresses
        return f"http://{host}:{port}"

    yield start
    for monitor, server in running:
        monitor.stop()
        run_on_reactor(server.stop())


async def test_the_report_is_as_the_contract_has_it(serve: Serve) -> None:
    response = await request("GET", serve(HEALTHY, DEGRADED) + "/healthz")
    assert response.code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    report = response.json
    assert list(report) == ["status", "totalDuration", "checks"]
    assert report["status"] == "Degraded"
    database, certificate = report["checks"]
    for timed in (report, database, certificate):
        took = timed.pop("totalDuration" if timed is report else "duration")
        assert isinstance(took, float)
        assert 0 <= took < 1000
        assert took == round(took, 2)
    assert database == {
        "name": "database",
        "status": "Healthy",
        "description": "PostgreSQL connection is healthy",
        "tags": ["tag"],
    }
    assert certificate == {
        "name": "certificate",
        "status": "Degraded",
        "description": None,
        "tags": ["tag"],
        "data": {"daysUntilExpiry": 29, "subject": "CN=é"},
    }


async def test_one_unhealthy_check_makes_it_503(serve: Serve) -> None:
    response = await request("GET", serve(HEALTHY, DEGRADED, UNHEALTHY) + "/healthz")
    assert response.code == 503
    assert response.json["status"] == "Unhealthy"
    assert len(response.json["checks"]) == 3


async def test_a_client_of_the_standard_library_understands_it(serve: Serve) -> None:
    url = serve(HEALTHY) + "/healthz"

    def ask() -> Any:
        with urllib.request.urlopen(url, timeout=LIMIT) as response:
            return json.load(response)

    report = await deferToThread(ask)
    assert report["status"] == "Healthy"


async def test_live_asks_nothing(serve: Serve) -> None:
    hanging = Check()
    response = await request("GET", serve(hanging.check) + "/healthz/live")
    assert response.code == 200
    assert response.json == {"status": "Healthy", "totalDuration": 0.0, "checks": []}
    assert hanging.runs == []


async def test_ready_asks_what_it_was_told(serve: Serve) -> None:
    url = serve(HEALTHY, UNHEALTHY, ready=("database",))
    response = await request("GET", url + "/healthz/ready")
    assert response.code == 200
    assert [check["name"] for check in response.json["checks"]] == ["database"]
    url = serve(HEALTHY, UNHEALTHY, ready=("database", "dns-mx"))
    assert (await request("GET", url + "/healthz/ready")).code == 503


@pytest.mark.parametrize("path", ["/healthz", "/healthz/live", "/healthz/ready"])
async def test_head_is_get_without_the_body(serve: Serve, path: str) -> None:
    url = serve(UNHEALTHY, ready=("dns-mx",)) + path
    response = await request("HEAD", url)
    assert response.code == (200 if path.endswith("live") else 503)
    assert response.body == b""
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) > 50


@pytest.mark.parametrize(
    "path", ["/", "/health", "/healthz/other", "/healthz/live/x", "/HEALTHZ", "/healthz%00"]
)
async def test_other_paths_are_not_found(serve: Serve, path: str) -> None:
    assert (await request("GET", serve(HEALTHY) + path)).code == 404


@pytest.mark.parametrize("path", ["/healthz/", "/healthz?full=1"])
async def test_a_slash_or_a_query_behind_the_path_makes_no_difference(serve: Serve, path: str) -> None:
    assert (await request("GET", serve(HEALTHY) + path)).code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"])
async def test_other_methods_are_not_allowed(serve: Serve, method: str) -> None:
    check = Check()
    response = await request(method, serve(check.check) + "/healthz")
    assert response.code == 405
    assert response.headers["allow"] == "GET, HEAD"
    assert check.runs == []


async def test_a_body_is_thrown_away(serve: Serve) -> None:
    response = await request("POST", serve(HEALTHY) + "/healthz", data=b"x" * 1_000_000)
    assert response.code == 405


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/healthz"), ("GET", "/nowhere"), ("POST", "/healthz"), ("OPTIONS", "*")]
)
async def test_no_answer_names_the_software(serve: Serve, method: str, path: str) -> None:
    url = serve(HEALTHY)
    host, port = url.removeprefix("http://").split(":")

    def ask() -> bytes:
        with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
            client.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            received = b""
            while chunk := client.recv(4096):
                received += chunk
            return received

    received = (await deferToThread(ask)).lower()
    assert received.startswith(b"http/1.1 ")
    assert b"server:" not in received
    assert b"twisted" not in received


async def test_a_client_that_goes_away_is_no_error_and_others_are_answered(serve: Serve) -> None:
    check = Check()
    url = serve(check.check)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(reactor, lambda: len(check.runs) == 1)
        staying = Deferred.fromCoroutine(request("GET", url + "/healthz"))
    await pause(reactor, 0.05)
    check.end()
    response = await staying
    assert response.code == 200
    assert len(check.runs) == 1


def listening(host: str | None, port: int = 0, on: Any = reactor) -> HealthServer:
    server = HealthServer(HealthMonitor([HEALTHY], ready=(), clock=reactor), host, port, reactor=on)
    server.start()
    return server


async def reaches(host: str, port: int) -> bool:
    def ask() -> bytes:
        with socket.create_connection((host, port), timeout=LIMIT) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(12)

    return await deferToThread(ask) == b"HTTP/1.1 200"


@needs_ipv6
async def test_localhost_is_loopback_of_both_families_on_one_port() -> None:
    server = listening("localhost")
    assert sorted(host for host, _ in server.addresses) == ["127.0.0.1", "::1"]
    [port] = {port for _, port in server.addresses}
    assert await reaches("127.0.0.1", port)
    assert await reaches("::1", port)
    await server.stop()


@needs_ipv6
async def test_all_interfaces_are_those_of_both_families() -> None:
    server = listening(None)
    [port] = {port for _, port in server.addresses}
    assert await reaches("127.0.0.1", port)
    assert await reaches("::1", port)
    await server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", IPV6_LOOPBACK])
async def test_an_address_is_only_that_address(host: str) -> None:
    server = listening(host)
    [(where, port)] = server.addresses
    assert where == host
    assert await reaches(host, port)
    await server.stop()


class WithoutIPv6:
    """The real reactor on a machine without IPv6."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def listenTCP(self, port: int, factory: Any, interface: str) -> Any:
        if ":" in interface:
            raise CannotListenError(interface, port, OSError(errno.EAFNOSUPPORT, "no IPv6"))
        return reactor.listenTCP(port, factory, interface=interface)


@pytest.mark.parametrize("host", ["localhost", None])
async def test_a_machine_without_ipv6_serves_ipv4(host: str | None) -> None:
    server = listening(host, on=WithoutIPv6())
    [(_, port)] = server.addresses
    assert await reaches("127.0.0.1", port)
    await server.stop()


async def test_without_ipv6_an_ipv6_address_is_an_error() -> None:
    with pytest.raises(CannotListenError):
        listening("::1", on=WithoutIPv6())


@pytest.mark.parametrize("host", ["localhost", None, "127.0.0.1"])
async def test_a_port_that_is_taken_is_an_error_at_start(host: str | None) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(CannotListenError):
            listening(host, other.getsockname()[1])


@needs_ipv6
async def test_after_a_failed_start_nothing_is_left_listening() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as other:
        other.bind(("::1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotListenError):
            listening("localhost", port)
        await pause(reactor, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
            free.bind(("127.0.0.1", port))


async def test_stopping_closes_the_port_and_idle_connections() -> None:
    server = listening("127.0.0.1")
    [(host, port)] = server.addresses
    with socket.create_connection((host, port), timeout=LIMIT) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await deferToThread(client.recv, 12) == b"HTTP/1.1 200"
        await server.stop()

        def rest() -> bytes:
            try:
                while client.recv(4096):
                    pass
            except ConnectionResetError:
                return b"reset"
            return b"closed"

        assert await deferToThread(rest) in (b"reset", b"closed")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port), timeout=LIMIT)
