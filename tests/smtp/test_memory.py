"""What a session leaves behind: nothing, and at once."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

from tests.conftest import reactor
from tests.smtp.test_listener import MX, Server, connect, said
from tests.support.waiting import until


async def test_a_session_that_is_over_is_no_garbage(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with server.listening(MX) as port:
        wire = await connect(port)
        await said(wire.hello)
        gone = [weakref.ref(part) for part in _parts(server)]
        gc.disable()
        try:
            wire.close()
            await until(reactor, lambda: not len(server.sessions))
            await until(reactor, lambda: all(reference() is None for reference in gone))
        finally:
            gc.enable()


def _parts(server: Server) -> list[Any]:
    (session,) = server.sessions._live
    return [session, session.dialogue, session.dialogue.authentication]
