"""One POST to the API, from the row's payload to an :class:`~relaymail.notify.outcome.Outcome`."""

from __future__ import annotations

import contextlib
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from relaymail.notify import outcome as outcomes
from relaymail.notify.outcome import Outcome
from relaymail.settings import Secret

PATH = "/api/internal/notifications/new-email"

DEADLINE = 10.0
"""Seconds for one attempt: connection, request, head and body of the answer."""


@implementer(IBodyProducer)
class _Payload:
    """A body that is written at once; treq's own producer takes a turn of the reactor for each piece."""

    def __init__(self, body: bytes) -> None:
        self.length = len(body)
        self._body = body

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        return succeed(None)

    def stopProducing(self) -> None:
        """Nothing to stop: all is written by then."""

    def pauseProducing(self) -> None:
        """Nothing to pause: the transport buffers the rest."""

    def resumeProducing(self) -> None:
        """Nothing to resume."""


class _Drain(Protocol):
    """Reads a body to its end and keeps nothing of it, so that the connection can be used again."""

    transport: Any

    def __init__(self) -> None:
        self.finished: Deferred[None] = Deferred(lambda _: self._cut())

    def _cut(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.finished.called:
            self.finished.callback(None)


class _Encoded(EncodedURL):
    """A URL as it is sent: treq encodes each once more, and IDNA has no use for an IPv6 address."""

    def to_uri(self) -> EncodedURL:
        return self


def _encoded(text: str) -> EncodedURL:
    """:raises ValueError: the host or the port is none."""
    url = EncodedURL.from_text(text)
    uri = url.replace(host="localhost").to_uri().replace(host=url.host) if ":" in url.host else url.to_uri()
    return _Encoded.from_text(uri.to_text())


class Endpoint:
    """The API's address and key.

    ``base_url`` may have a path and may end in a slash; ``deadline`` is in seconds.
    Raises ``ValueError`` for anything but an http(s) URL.
    """

    def __init__(
        self,
        base_url: str,
        api_key: Secret | None,
        *,
        agent: Any,
        clock: Any,
        deadline: float = DEADLINE,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("Api:BaseUrl must be an http:// or https:// URL")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("Api:BaseUrl must not hold a user name, a query or a fragment")
        self.where = base_url.rstrip("/")
        """The address for the log."""
        try:
            self._url = _encoded(base_url.rstrip("/") + PATH)
        except ValueError as error:
            raise ValueError(f"Api:BaseUrl is no URL: {error}") from None
        self._key = api_key
        self._clock = clock
        self._deadline = deadline
        # The API has no cookies for us: a jar that takes none cannot grow
        cookies = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=()))
        payload: Any = _Payload
        self._client = HTTPClient(agent, cookies, payload)

    async def post(self, payload: str, traceparent: str | None = None) -> Outcome:
        """Try once. Takes no longer than the deadline, and raises nothing: what goes wrong is the outcome.

        :param traceparent: the header that joins the API's trace to ours (W3C Trace Context 3.2).
        """
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            exchange.cancel()

        exchange = Deferred.fromCoroutine(self._exchange(payload.encode(), traceparent))
        timer = self._clock.callLater(self._deadline, give_up)
        try:
            return await exchange
        except Exception as error:
            return outcomes.timed_out(self._deadline) if late else outcomes.from_error(error)
        finally:
            if timer.active():
                timer.cancel()

    async def _exchange(self, body: bytes, traceparent: str | None) -> Outcome:
        response = await self._client.post(
            self._url, data=body, headers=self._headers(traceparent), allow_redirects=False, unbuffered=True
        )
        drain = _Drain()
        response.deliverBody(drain)
        # The status is the answer: a body that stalls or never ends cannot undo what the API has taken.
        with contextlib.suppress(CancelledError):
            await drain.finished
        return _judge(response)

    def _headers(self, traceparent: str | None) -> Headers:
        headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"relaymail"]})
        if traceparent is not None:
            headers.addRawHeader(b"traceparent", traceparent.encode())
        if self._key is not None:
            headers.addRawHeader(b"Authorization", b"ApiKey " + self._key.reveal().encode())
        return headers


def _judge(response: IResponse) -> Outcome:
    def field(name: bytes) -> bytes | None:
        values = response.headers.getRawHeaders(name)
        return values[0] if values else None

    return outcomes.from_status(response.code, outcomes.retry_after(field(b"retry-after"), field(b"date")))
