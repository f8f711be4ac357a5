"""One notification to nobody, to see what the API makes of it: shared by the checks of the API."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.web.client import FileBodyProducer
from twisted.web.http_headers import Headers

from relaymail.doctor.context import Context
from relaymail.doctor.deadline import within
from relaymail.notify import outcome
from relaymail.notify.connection import Connections
from relaymail.notify.endpoint import PATH

LIMIT: Final = 8.0
"""Seconds for the whole exchange."""

NOBODY: Final = {
    "userIds": [],
    "email": {
        "id": "00000000-0000-0000-0000-000000000000",
        "from": "doctor@relaymail.invalid",
        "fromDisplay": None,
        "subject": "relaymail doctor",
        "receivedAt": "2000-01-01T00:00:00Z",
        "hasAttachments": False,
    },
}
"""A notification for no user: an API that takes it tells nobody."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API made of it."""

    code: int | None
    """The HTTP status; ``None``: there was no answer."""
    reason: str
    """In words, with nothing the peer wrote."""


async def answer(context: Context) -> Answer:
    """The API's answer; asked for once."""
    return await context.once("api", lambda: _ask(context))


class _Cut(Protocol):
    """Wants nothing of a body."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


async def _ask(context: Context) -> Answer:
    connections = Connections(context.reactor, 1)
    asking = Deferred.fromCoroutine(_post(context, connections.agent))
    try:
        code = await within(context.reactor, LIMIT, asking)
    except TimeoutError:
        return Answer(None, f"no answer within {LIMIT:g} s")
    except Exception as error:
        return Answer(None, outcome.from_error(error).reason)
    finally:
        await connections.close()
    return Answer(code, outcome.from_status(code).reason)


async def _post(context: Context, agent: Any) -> int:
    headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"relaymail"]})
    key = context.settings.internal.api_key
    if key is not None:
        headers.addRawHeader(b"Authorization", b"ApiKey " + key.reveal().encode())
    url = context.settings.api.base_url.rstrip("/") + PATH
    producer: Any = FileBodyProducer(BytesIO(json.dumps(NOBODY).encode()))
    response = await agent.request(b"POST", url.encode(), headers, producer)
    code: int = response.code
    # The status is the answer; the rest may be as long as it likes
    response.deliverBody(_Cut())
    return code
