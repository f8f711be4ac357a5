"""A message on its way out: after DATA with dots stuffed (RFC 5321 4.5.2), or in chunks (RFC 3030).

Its end is held back until the other side of the house has agreed to it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import Final

from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_timeouts import ClientTimeouts
from relaymail.smtp.client_wire import SLICE, Wire

Body = bytes | AsyncIterable[bytes]
"""A message as it is to be sent, header section included: at once, or in parts that are asked for as the host
takes them. Asked for only once the host wants the message; closed (``aclose``) when it is not read to its
end."""

CHUNK: Final = 256 * 1024
"""Octets of a chunk of BDAT."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class NotOurs(Exception):
    """The message must not be ended; the connection has been dropped."""


class DotStuffer:
    """Makes of a message the octets that follow ``354``, whatever way it is cut.

    A bare CR or LF never leaves: each is made a CRLF, because what a host takes for the end of a message, and
    for a command behind it, is its own affair.
    """

    __slots__ = ("_carry", "_line_begins")

    def __init__(self) -> None:
        self._carry = b""
        """A CR that may be the first half of a line end."""
        self._line_begins = True

    def feed(self, data: bytes) -> bytes:
        """Take the next octets; return those to be sent."""
        if self._carry:
            data = self._carry + data
            self._carry = b""
        if data.endswith(b"\r"):
            self._carry = b"\r"
            data = data[:-1]
        return self._stuffed(data)

    def finish(self) -> bytes:
        """The rest, with the line of the final dot."""
        rest = self._stuffed(self._carry)
        self._carry = b""
        return rest + (b".\r\n" if self._line_begins else b"\r\n.\r\n")

    def _stuffed(self, data: bytes) -> bytes:
        if not data:
            return data
        ends = data.count(b"\r\n")
        if data.count(b"\n") != ends or data.count(b"\r") != ends:
            data = _LINE_END.sub(b"\r\n", data)
        at_line_begin, self._line_begins = self._line_begins, data.endswith(b"\r\n")
        if b"\r\n." in data:
            data = data.replace(b"\r\n.", b"\r\n..")
        return b"." + data if at_line_begin and data.startswith(b".") else data


async def send_data(
    wire: Wire, body: Body, may_end: Callable[[], Awaitable[bool]] | None, timeouts: ClientTimeouts
) -> RemoteReply | None:
    """Send the message and its final dot, for which a reply is due then. Returns ``None``.

    :raises Broken: the host did not take it, or spoke up before the end. The dot has not been sent.
    :raises NotOurs: ``may_end`` said no.
    """
    stuffer = DotStuffer()
    held = b""
    try:
        async with aclosing(_slices(body, SLICE)) as slices:
            async for piece in slices:
                if held:
                    await wire.body(held, timeouts.block)
                held = stuffer.feed(piece)
    finally:
        wire.end_of_body()
    await _agree(wire, may_end)
    wire.command(held + stuffer.finish())
    return None


async def send_chunks(
    wire: Wire, body: Body, may_end: Callable[[], Awaitable[bool]] | None, timeouts: ClientTimeouts
) -> RemoteReply | None:
    """Send the message in chunks. ``None``: the last one is sent, and a reply to it due; else how the host
    refused one. Raises as :func:`send_data` does."""
    held: bytes | None = None
    async with aclosing(_chunks(body)) as chunks:
        async for chunk in chunks:
            if held is not None:
                await _send_chunk(wire, held, b"", timeouts)
                reply = await wire.reply(timeouts.block)
                if reply.code // 100 != 2:
                    return reply
            held = chunk
    await _agree(wire, may_end)
    await _send_chunk(wire, held or b"", b" LAST", timeouts)
    return None


async def _agree(wire: Wire, may_end: Callable[[], Awaitable[bool]] | None) -> None:
    if may_end is not None and not await may_end():
        wire.abort()
        raise NotOurs


async def _send_chunk(wire: Wire, chunk: bytes, last: bytes, timeouts: ClientTimeouts) -> None:
    wire.command(b"BDAT %d%b\r\n" % (len(chunk), last))
    end = (len(chunk) - 1) // SLICE * SLICE if chunk else 0
    try:
        for at in range(0, end, SLICE):
            await wire.body(chunk[at : at + SLICE], timeouts.block)
    finally:
        wire.end_of_body()
    # Not waited for: behind these octets the message may be the host's
    wire.command(chunk[end:], replies=0)


async def _chunks(body: Body) -> AsyncGenerator[bytes, None]:
    """All of a body in chunks of one size, but for the last."""
    collected = bytearray()
    async with aclosing(_slices(body, CHUNK)) as slices:
        async for piece in slices:
            collected += piece
            if len(collected) >= CHUNK:
                yield bytes(collected[:CHUNK])
                del collected[:CHUNK]
    if collected:
        yield bytes(collected)


async def _slices(body: Body, most: int) -> AsyncGenerator[bytes, None]:
    """All of a body, at most so many octets at a time."""
    if isinstance(body, bytes):
        for at in range(0, len(body), most):
            yield body[at : at + most]
        return
    parts = aiter(body)
    try:
        async for part in parts:
            for at in range(0, len(part), most):
                yield part[at : at + most]
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()
