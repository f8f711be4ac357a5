"""A notifier in a process of its own that kills itself at a point: ``worker PARAMETERS URL POINT``."""

from __future__ import annotations

import json
import os
import signal
import sys

from relaymail.notify import Notifier
from relaymail.store.database import Database
from tests.conftest import reactor


def main() -> None:
    parameters, url, fatal = sys.argv[1:]

    def crash(point: str) -> None:
        if point == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    database = Database(json.loads(parameters), reactor=reactor)
    notifier = Notifier(database, base_url=url, api_key=None, reactor=reactor, crash=crash)

    def start() -> None:
        database.start()
        notifier.start()

    reactor.callWhenRunning(start)
    # Nobody waits longer for a point that does not come
    reactor.callLater(30, reactor.stop)
    reactor.run()


if __name__ == "__main__":
    main()
