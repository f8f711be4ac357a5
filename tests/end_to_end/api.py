"""The API in whose place notifications are taken: a real HTTP server that can fail, stall and go away."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from tests.support.polling import LIMIT, until
from tests.support.ports import free_port

PATH = "/api/internal/notifications/new-email"


class Request(NamedTuple):
    """What came in."""

    method: str
    path: str
    authorization: str | None
    content_type: str | None
    body: Any
    traceparent: str | None = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, api: Api) -> None:
        self.api = api
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A host that was killed breaks its connections off; nothing to print about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        api = self.server.api
        body = self.rfile.read(int(self.headers["Content-Length"]))
        api.going.wait()
        api.requests.append(
            Request(
                self.command,
                self.path,
                self.headers["Authorization"],
                self.headers["Content-Type"],
                json.loads(body),
                self.headers["traceparent"],
            )
        )
        self.send_response(api.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on standard error."""


class Api:
    """Answers 204 from the start; ``status`` may be changed, ``going`` cleared to stall every request."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 204
        self.going = threading.Event()
        self.going.set()
        self._server: _Server | None = None
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, again on the same port."""
        self._server = _Server(self.port, self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def told(self, email: str) -> list[Any]:
        """The bodies of all notifications of this row of ``Emails``."""
        return [request.body for request in list(self.requests) if request.body["email"]["id"] == email]

    def until_told(self, email: str, limit: float = LIMIT) -> Any:
        """The notification of this row, once it has come."""
        until(lambda: bool(self.told(email)), limit)
        return self.told(email)[0]
