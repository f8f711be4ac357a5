"""Runs ``async def`` tests on the real reactor, and looks after what they leave behind."""

from __future__ import annotations

import inspect
import signal
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import settings
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

reactor: Any = _reactor

# A shell starts background jobs with SIGINT ignored, and what they start inherits it: Ctrl-C would do nothing
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines are noisy: how long an example took says nothing
settings.register_profile("relaymail", deadline=None)
settings.load_profile("relaymail")

pytest_plugins = ["tests.support.fixtures"]

ASYNC_TEST_LIMIT = 300.0
"""Seconds after which an ``async def`` test has hung: more than it waits for any one thing."""


def run_on_reactor(coroutine: Coroutine[Any, Any, Any], limit: float = ASYNC_TEST_LIMIT) -> Any:
    """Run ``coroutine`` on the global reactor to its end as trial does: run, crash, as often as needed."""
    outcome: list[Any] = []

    def finish(result: Any) -> None:
        outcome.append(result)
        if timer.active():
            timer.cancel()
        reactor.callLater(0, reactor.crash)

    def hung() -> None:
        outcome.append(Failure(TimeoutError(f"the test did not finish within {limit:g} s")))
        reactor.crash()

    timer = reactor.callLater(limit, hung)
    interrupt = signal.getsignal(signal.SIGINT)
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(coroutine).addBoth(finish))
    reactor.callWhenRunning(signal.signal, signal.SIGINT, interrupt)
    reactor.run()
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Give coroutine tests to the reactor; plain ones go pytest's way."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    run_on_reactor(pyfuncitem.obj(**arguments))
    return True


def pytest_sessionfinish() -> None:
    """The reactor's threads are not daemons: without this the process would not end."""
    reactor.getThreadPool().stop()
