"""DKIM signatures for what is about to be sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from datetime import datetime
from typing import Any, Final

from twisted.logger import Logger

from relaymail.message.dkim import SignedForm, Unsignable
from relaymail.store.dkim import DkimKeys

log = Logger()

PIECE: Final = 64 * 1024
"""Octets hashed at once, 0.2 ms or at worst 5 ms: what is larger is hashed in a thread, piece by piece."""


class Signer:
    """Signs for the domains that have a key.

    :param run: runs a function in a thread and returns a Deferred.
    :param now: the time, aware.
    """

    def __init__(self, keys: DkimKeys, *, run: Callable[..., Any], now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._run = run
        self._now = now

    async def fields(self, form: AsyncIterable[bytes] | Iterable[bytes]) -> bytes:
        """The ``DKIM-Signature:`` fields to be put in front of ``form``, each line ended with CRLF.

        ``form`` is the message as this next host gets it: what is re-encoded for a host without 8BITMIME is
        re-encoded before, or the signature is broken on arrival. ``b""`` where the domain of From: has no
        active key, and where the message cannot be signed; then ``form`` is not read to its end.

        :raises ~relaymail.store.dkim.KeysUnusable: there are active keys, and none of them can be read.
            Sending unsigned may get the mail refused for good: try again later.
        :raises ~relaymail.store.database.DatabaseError: the keys could not be looked up.
        """
        reading = SignedForm()
        parts = _parts(form)
        try:
            async for part in parts:
                if len(part) <= PIECE:
                    reading.feed(part)
                else:
                    await self._run(_feed, reading, part)
                if reading.header_read and not await self._signs_for(reading.domain):
                    return b""
            reading.finish()
            if reading.domain is None:
                return b""
            return reading.sign(await self._keys.of(reading.domain), int(self._now().timestamp()))
        except Unsignable as error:
            log.warn("A message of {domain} is sent unsigned: {why}", domain=reading.domain, why=str(error))
            return b""
        finally:
            await parts.aclose()

    async def _signs_for(self, domain: str | None) -> bool:
        return domain is not None and bool(await self._keys.of(domain))


def _feed(reading: SignedForm, part: bytes) -> None:
    for start in range(0, len(part), PIECE):
        reading.feed(part[start : start + PIECE])


async def _parts(form: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    if isinstance(form, AsyncIterable):
        async for part in form:
            yield part
    else:
        for part in form:
            yield part
