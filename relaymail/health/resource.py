"""HTTP on the health port: a few fixed paths, each with what answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

METHODS = (b"GET", b"HEAD")

TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Question:
    """What of a request matters here."""

    accept: str = ""
    """Its ``Accept`` header."""
    query: Mapping[bytes, list[bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    body: bytes
    content_type: str
    code: int = http.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Page = Callable[[Question], Awaitable[Answer]]


class HealthRequest(Request):
    """A request that takes no body and whose answer does not tell what software gives it."""

    def setHeader(self, name: bytes, value: bytes) -> None:
        """Set a header of the answer; twisted.web's own ``Server`` names its version and is left out."""
        if name.lower() != b"server":
            super().setHeader(name, value)  # type: ignore[no-untyped-call]

    def gotLength(self, length: int | None) -> None:
        """A body of ``length`` bytes will follow; it will be thrown away, so it needs no file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Throw a part of the body away."""


class HealthResource(Resource):
    """Answers for the whole site: these paths, and nothing else.

    :param pages: what answers each path; a slash at the end makes no difference.
    """

    isLeaf = True

    def __init__(self, pages: Mapping[bytes, Page]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pages = pages

    def render(self, request: Any) -> bytes | int:
        """Answer, or begin to."""
        page = self._pages.get(request.path.rstrip(b"/") or b"/")
        if page is None:
            _send(request, _refusal(http.NOT_FOUND))
        elif request.method not in METHODS:
            _send(request, _refusal(http.NOT_ALLOWED, {"Allow": ", ".join(m.decode() for m in METHODS)}))
        else:
            answering = Deferred.fromCoroutine(_answer(request, page))
            answering.addErrback(_gone, request)
            request.notifyFinish().addErrback(lambda _: answering.cancel())
        return NOT_DONE_YET


async def _answer(request: Any, page: Page) -> None:
    accept = request.getHeader(b"accept") or b""
    _send(request, await page(Question(accept.decode("latin-1"), request.args)))


def _send(request: Any, answer: Answer) -> None:
    request.setResponseCode(answer.code)
    request.setHeader(b"Content-Type", answer.content_type.encode())
    request.setHeader(b"Content-Length", b"%d" % len(answer.body))
    request.setHeader(b"Cache-Control", b"no-store")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    for name, value in answer.headers.items():
        request.setHeader(name.encode(), value.encode())
    request.write(answer.body)
    request.finish()


def _gone(failure: Failure, request: Any) -> None:
    """The client has gone away, which is nothing; or the page failed, which must not leave it waiting."""
    if not isinstance(failure.value, CancelledError):
        request.processingFailed(failure)


def _refusal(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(http.RESPONSES[code] + b"\n", TEXT, code, headers or {})


def prefers_html(accept: str) -> bool:
    """Whether an ``Accept`` header (RFC 9110 12.5.1) asks for HTML rather than JSON, as browsers do."""
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, wanted: str) -> float:
    """What a media type is worth to the client: that of the most exact range that it is in."""
    best = (-1, 0.0)
    ranges = (wanted, f"{wanted.partition('/')[0]}/*", "*/*")
    for entry in accept.lower().split(","):
        name, _, parameters = entry.partition(";")
        if name.strip() in ranges:
            best = max(best, (-ranges.index(name.strip()) + len(ranges), _weight(parameters)))
    return best[1]


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
