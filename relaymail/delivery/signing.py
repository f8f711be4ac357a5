"""DKIM signatures for what is about to be sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from datetime import datetime
from typing import Any, Final

from twisted.logger import Logger

from relaymail.message.dkim import SignedForm, Unsignable
from relaymail.store.dkim import DkimKeys

log = Logger()

INLINE_OCTETS: Final = 64 * 1024
"""What is larger is hashed in a thread: the worst text takes the reactor a few ms per 64 KB."""


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
                if len(part) <= INLINE_OCTETS:
                    reading.feed(part)
                else:
                    await self._run(reading.feed, part)
                if reading.header_read and not await self._signs_for(reading.domain):
                    return b""
            reading.finish()
            if reading.domain is None:
                return b""
            keys = await self._keys.of(reading.domain)
            at = int(self._now().timestamp())
            if all(key.quick for key in keys):
                return reading.sign(keys, at)
            made: bytes = await self._run(reading.sign, keys, at)
            return made
        except Unsignable as error:
            log.warn("A message of {domain} is sent unsigned: {why}", domain=reading.domain, why=str(error))
            return b""
        finally:
            await parts.aclose()

    async def _signs_for(self, domain: str | None) -> bool:
        return domain is not None and bool(await self._keys.of(domain))


async def _parts(form: AsyncIterable[bytes] | Iterable[bytes]) -> AsyncGenerator[bytes, None]:
    if isinstance(form, AsyncIterable):
        async for part in form:
            yield part
    else:
        for part in form:
            yield part
