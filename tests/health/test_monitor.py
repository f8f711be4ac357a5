"""When checks run, for how long, who is told what; on a fake clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, globalLogPublisher

from relaymail.health import HealthCheck, HealthMonitor, Report, Result, Status
from tests.health.support import Check, fixed


def ask(question: Any) -> Deferred[Report]:
    return Deferred.fromCoroutine(question)


def answer(asked: Deferred[Report]) -> Report:
    assert asked.called, "there is no answer yet"
    report = asked.result
    assert isinstance(report, Report)
    return report


def outcomes(report: Report) -> dict[str, tuple[Status, str | None]]:
    return {check.name: (check.result.status, check.result.description) for check in report.checks}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What the monitor logs."""
    seen: list[LogEvent] = []

    def see(event: LogEvent) -> None:
        if event["log_namespace"] == "relaymail.health.monitor":
            seen.append(event)

    globalLogPublisher.addObserver(see)  # type: ignore[arg-type]
    yield seen
    globalLogPublisher.removeObserver(see)  # type: ignore[arg-type]


def test_all_checks_start_together_and_the_report_has_their_times(clock: Clock) -> None:
    first, second = Check("database"), Check("smtp")
    monitor = HealthMonitor([first.check, second.check], ready=(), clock=clock)
    asked = ask(monitor.full())
    assert (len(first.runs), len(second.runs)) == (1, 1)
    clock.advance(0.25)
    second.end()
    clock.advance(0.5)
    assert not asked.called
    first.end()
    report = answer(asked)
    assert [(check.name, check.duration) for check in report.checks] == [("database", 0.75), ("smtp", 0.25)]
    assert report.duration == 0.75
    assert clock.getDelayedCalls() == []


def test_a_hanging_check_is_cancelled_after_five_seconds_and_the_others_count(clock: Clock) -> None:
    hanging, quick = Check("database"), Check("smtp")
    monitor = HealthMonitor([hanging.check, quick.check], ready=(), clock=clock)
    asked = ask(monitor.full())
    quick.end()
    clock.advance(4.9)
    assert not asked.called
    assert hanging.cancelled == 0
    clock.advance(0.1)
    report = answer(asked)
    assert outcomes(report) == {
        "database": (Status.UNHEALTHY, "timed out after 5 s"),
        "smtp": (Status.HEALTHY, "fine"),
    }
    assert hanging.cancelled == 1
    assert report.status is Status.UNHEALTHY
    assert report.duration == 5.0


def test_all_checks_hanging_take_no_longer_than_one(clock: Clock) -> None:
    checks = [Check(name) for name in ("database", "smtp", "dns-mx", "memory")]
    monitor = HealthMonitor([check.check for check in checks], ready=(), clock=clock)
    asked = ask(monitor.full())
    clock.advance(5)
    assert set(outcomes(answer(asked)).values()) == {(Status.UNHEALTHY, "timed out after 5 s")}


def test_a_check_that_ignores_cancellation_is_reported_all_the_same(clock: Clock) -> None:
    stubborn: list[Deferred[None]] = []

    async def run() -> Result:
        while len(stubborn) < 3:
            stubborn.append(Deferred())
            try:
                await stubborn[-1]
            except CancelledError:
                continue
        return Result(Status.HEALTHY, "too late")

    monitor = HealthMonitor([HealthCheck("database", (), run)], ready=(), clock=clock)
    asked = ask(monitor.full())
    clock.advance(5)
    assert outcomes(answer(asked)) == {"database": (Status.UNHEALTHY, "timed out after 5 s")}
    stubborn[-1].callback(None)
    stubborn[-1].callback(None)
    assert monitor.latest["database"].result.description == "timed out after 5 s"


def test_the_next_run_begins_anew_after_one_that_hung(clock: Clock) -> None:
    check = Check()
    monitor = HealthMonitor([check.check], ready=(), clock=clock)
    ask(monitor.full())
    clock.advance(5)
    asked = ask(monitor.full())
    check.end()
    assert answer(asked).status is Status.HEALTHY


@pytest.mark.parametrize(
    "error", [ValueError("password=hunter2 in /etc/secret"), KeyboardInterrupt("x"), CancelledError()]
)
def test_an_exception_is_unhealthy_and_its_text_is_not_told(
    clock: Clock, events: list[LogEvent], error: BaseException
) -> None:
    async def run() -> Result:
        raise error

    monitor = HealthMonitor([HealthCheck("database", (), run)], ready=(), clock=clock)
    report = answer(ask(monitor.full()))
    assert outcomes(report) == {
        "database": (Status.UNHEALTHY, f"the check itself failed ({type(error).__name__})")
    }
    assert "hunter2" not in str(report.as_json())
    assert events[0]["log_failure"].value is error, "the log has it"


def test_a_check_that_is_no_coroutine_and_raises_is_unhealthy(clock: Clock) -> None:
    def run() -> Any:
        raise RuntimeError

    monitor = HealthMonitor([HealthCheck("database", (), run)], ready=(), clock=clock)
    assert answer(ask(monitor.full())).status is Status.UNHEALTHY


def test_two_who_ask_at_once_share_a_run(clock: Clock) -> None:
    check = Check()
    monitor = HealthMonitor([check.check], ready=["database"], clock=clock)
    first = ask(monitor.full())
    clock.advance(1)
    second = ask(monitor.ready())
    assert len(check.runs) == 1
    check.end()
    assert answer(first).status is answer(second).status is Status.HEALTHY
    ask(monitor.full())
    assert len(check.runs) == 2, "a new question is a new look"


def test_one_who_goes_away_does_not_end_the_run_for_the_other(clock: Clock) -> None:
    check = Check()
    monitor = HealthMonitor([check.check], ready=(), clock=clock)
    first, second = ask(monitor.full()), ask(monitor.full())
    first.addErrback(lambda failure: failure.trap(CancelledError))
    first.cancel()
    assert check.cancelled == 0
    check.end()
    assert answer(second).status is Status.HEALTHY


def test_a_shared_result_is_given_again_for_some_seconds(clock: Clock) -> None:
    check = Check(shared=5)
    monitor = HealthMonitor([check.check], ready=(), clock=clock)
    ask(monitor.full())
    check.end(Status.DEGRADED, "slow")
    clock.advance(4.9)
    assert outcomes(answer(ask(monitor.full()))) == {"database": (Status.DEGRADED, "slow")}
    assert len(check.runs) == 1
    clock.advance(0.1)
    ask(monitor.full())
    assert len(check.runs) == 2


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ([Status.HEALTHY, Status.HEALTHY], Status.HEALTHY),
        ([Status.HEALTHY, Status.DEGRADED], Status.DEGRADED),
        ([Status.UNHEALTHY, Status.DEGRADED], Status.UNHEALTHY),
        ([], Status.HEALTHY),
    ],
)
def test_the_whole_is_its_worst_check(clock: Clock, statuses: list[Status], whole: Status) -> None:
    names = ("database", "smtp")
    checks = [fixed(name, Result(status)) for name, status in zip(names, statuses, strict=False)]
    assert answer(ask(HealthMonitor(checks, ready=(), clock=clock).full())).status is whole


def test_readiness_asks_only_the_checks_named(clock: Clock) -> None:
    checks = [
        fixed("database", Result(Status.HEALTHY)),
        fixed("smtp", Result(Status.DEGRADED)),
        fixed("dns-mx", Result(Status.UNHEALTHY)),
    ]
    monitor = HealthMonitor(checks, ready=["smtp", "database", "smtp", "certificate"], clock=clock)
    report = answer(ask(monitor.ready()))
    assert [check.name for check in report.checks] == ["smtp", "database"]
    assert report.status is Status.DEGRADED


def test_an_unknown_name_in_ready_checks_is_an_error_that_lists_the_known(clock: Clock) -> None:
    with pytest.raises(ValueError, match=r"HealthCheck:ReadyChecks: 'dns'.*there are database, smtp, dns-mx"):
        HealthMonitor([], ready=["database", "dns"], clock=clock)


def test_it_looks_by_itself_every_thirty_seconds(clock: Clock) -> None:
    seen: list[tuple[str, int, float]] = []
    check = Check()
    monitor = HealthMonitor(
        [check.check], ready=(), clock=clock, record=lambda *arguments: seen.append(arguments)
    )
    monitor.start()
    clock.advance(0.5)
    check.end(Status.DEGRADED)
    assert seen == [("database", 1, 0.5)]
    clock.advance(29.4)
    assert len(check.runs) == 1
    clock.advance(0.1)
    assert len(check.runs) == 2
    clock.advance(5)
    assert seen[1:] == [("database", 2, 5.0)]
    clock.advance(25)
    assert len(check.runs) == 3
    check.end()
    assert monitor.latest["database"].result.status is Status.HEALTHY
    monitor.stop()
    clock.advance(100)
    assert len(check.runs) == 3
    assert clock.getDelayedCalls() == []


def test_a_change_of_state_is_logged_once(clock: Clock, events: list[LogEvent]) -> None:
    check = Check()
    monitor = HealthMonitor([check.check], ready=(), clock=clock)

    def find(status: Status) -> None:
        ask(monitor.full())
        check.end(status, f"is {status.value}")

    for status in (
        Status.HEALTHY,
        Status.HEALTHY,
        Status.DEGRADED,
        Status.DEGRADED,
        Status.UNHEALTHY,
        Status.UNHEALTHY,
        Status.HEALTHY,
        Status.HEALTHY,
    ):
        find(status)
    assert [(event["log_level"], event["check"], event["status"]) for event in events] == [
        (LogLevel.warn, "database", "Degraded"),
        (LogLevel.error, "database", "Unhealthy"),
        (LogLevel.info, "database", "Healthy"),
    ]
    assert events[0]["description"] == "is Degraded"


def test_stopping_ends_what_runs_and_tells_who_waits(clock: Clock, events: list[LogEvent]) -> None:
    check = Check()
    monitor = HealthMonitor([check.check], ready=(), clock=clock)
    monitor.start()
    asked = ask(monitor.full())
    monitor.stop()
    assert outcomes(answer(asked)) == {"database": (Status.UNHEALTHY, "the host is stopping")}
    assert check.cancelled == 1
    assert clock.getDelayedCalls() == []
    assert events == []
    monitor.stop()


def test_what_is_not_there_yet_while_a_host_starts_alarms_nobody(
    clock: Clock, events: list[LogEvent]
) -> None:
    seen: list[int] = []
    check = Check()
    monitor = HealthMonitor(
        [check.check], ready=(), clock=clock, record=lambda _, status, __: seen.append(status), grace=15
    )
    monitor.start()
    clock.advance(1)
    monitor.settled()
    check.end(Status.UNHEALTHY, "began before the host was ready")
    assert (len(check.runs), events) == (2, [])
    check.end()
    assert (seen, events) == ([2, 0], [])
    ask(monitor.full())
    check.end(Status.UNHEALTHY, "after it was")
    assert [event["status"] for event in events] == ["Unhealthy"]
    monitor.stop()


def test_a_host_that_does_not_become_ready_is_told_of_in_the_end(
    clock: Clock, events: list[LogEvent]
) -> None:
    monitor = HealthMonitor(
        [fixed("database", Result(Status.UNHEALTHY, "away"))], ready=(), clock=clock, grace=15
    )
    monitor.start()
    assert events == []
    clock.advance(30)
    assert [event["status"] for event in events] == ["Unhealthy"]
    monitor.stop()


def test_a_host_that_stops_while_it_becomes_ready_looks_no_more(clock: Clock) -> None:
    check = Check()
    monitor = HealthMonitor([check.check], ready=(), clock=clock, grace=15)
    monitor.start()
    monitor.settled()
    monitor.stop()
    assert len(check.runs) == 1
    assert clock.getDelayedCalls() == []
