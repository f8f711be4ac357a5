"""Running checks: side by side, within their time, whatever they do; nothing secret in what they found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock

from relaymail.doctor import Check, Context, Finding, Outcome, Severity, State, exit_code, run_checks
from relaymail.doctor.check import Skipped, failed, passed
from relaymail.doctor.page import Page, Remedy
from relaymail.settings import examine
from tests.doctor.conftest import Installation

PAGE = Page("", "", (), Remedy("", "", ""))


def check(
    look: Callable[[Context], Awaitable[Finding]], name: str = "one", severity: Severity = Severity.ERROR
) -> Check:
    return Check(f"check.test.{name}", name, severity, (), PAGE, look)


async def hang(context: Context) -> Finding:
    await Deferred()
    raise AssertionError


async def deaf(context: Context) -> Finding:
    """Hangs on, even when it is cancelled."""
    await Deferred(lambda waiting: None).addErrback(lambda _: Deferred())
    raise AssertionError


async def fine(context: Context) -> Finding:
    return passed("fine")


async def broken(context: Context) -> Finding:
    raise ZeroDivisionError("with a secret in its text")


def on_a_clock(*checks: Check, **options: Any) -> tuple[Clock, Deferred[list[Outcome]]]:
    clock = Clock()
    context = Context(examine(None, {}), reactor=clock)
    return clock, ensureDeferred(run_checks(checks, context, **options))


def result(running: Deferred[list[Outcome]]) -> list[Outcome]:
    found: list[list[Outcome]] = []
    running.addCallback(found.append)
    assert found, "it still runs"
    return found[0]


def test_one_that_hangs_is_given_up_and_the_others_are_told() -> None:
    clock, running = on_a_clock(check(hang, "a"), check(fine, "b"), check(deaf, "c"))
    clock.advance(9.9)
    assert not running.called
    clock.advance(0.2)
    outcomes = result(running)
    assert [outcome.finding.state for outcome in outcomes] == [State.FAIL, State.PASS, State.FAIL]
    assert outcomes[0].finding.summary == "no answer within 10 s"
    assert clock.getDelayedCalls() == []


def test_all_together_have_their_time_too() -> None:
    clock, running = on_a_clock(*[check(hang, str(n)) for n in range(20)], together=3.0)
    clock.advance(3.1)
    assert {outcome.finding.summary for outcome in result(running)} == {"no answer within 3 s"}


def test_who_waits_is_told_what_for() -> None:
    told: list[tuple[list[str], float]] = []
    clock, running = on_a_clock(
        check(hang, "slow"),
        check(fine, "fast"),
        progress=lambda busy, seconds: told.append(([one.title for one in busy], seconds)),
    )
    clock.advance(2.0)
    clock.advance(2.0)
    assert told == [(["slow"], 2.0), (["slow"], 4.0)]
    clock.advance(6.0)
    result(running)


def test_a_check_that_breaks_is_a_failure_of_its_own_and_tells_nothing_of_what_it_held() -> None:
    _, running = on_a_clock(check(broken), check(fine))
    first, second = result(running)
    assert first.severity is Severity.ERROR
    assert "ZeroDivisionError at test_runner.py:" in first.finding.summary
    assert "secret" not in str(first)
    assert second.finding.state is State.PASS


def test_the_exit_code_is_that_of_the_worst() -> None:
    def outcomes(*severities: Severity | None) -> list[Outcome]:
        made = [passed("") if one is None else failed("", severity=one) for one in severities]
        return [Outcome(check(fine), finding, 0.0) for finding in made]

    assert exit_code([]) == 0
    assert exit_code(outcomes(None, None)) == 0
    assert exit_code(outcomes(None, Severity.INFO)) == 0
    assert exit_code(outcomes(None, Severity.WARN, Severity.INFO)) == 3
    assert exit_code(outcomes(Severity.WARN, Severity.ERROR)) == 1
    assert exit_code([Outcome(check(fine, severity=Severity.WARN), failed(""), 0.0)]) == 3


async def test_a_reason_to_skip_is_told(installation: Installation) -> None:
    async def skips(context: Context) -> Finding:
        raise Skipped("nothing to look at")

    (outcome,) = await installation.run(check(skips))
    assert (outcome.finding.state, outcome.finding.summary) == (State.SKIP, "nothing to look at")
    assert outcome.severity is None


SECRETS = {
    "ConnectionStrings__DefaultConnection": "Host=db;Username=u;Password=hush-database",
    "Internal__ApiKey": "hush-key",
    "OutboundMail__RelayPassword": "hush-relay",
    "Smtp__CertificatePassword": "hush-certificate",
    "Security__AuthenticationSalt": "hush-salt",
    "Smtp__Password": "hush-smtp",
    "Email__Smtp__Password": "hush-email",
    "Notify__Email__Password": "hush-notify",
}


@pytest.mark.parametrize("where", ["summary", "details", "publish", "data"])
async def test_no_secret_is_in_what_is_found(installation: Installation, where: str) -> None:
    installation.set(SECRETS)
    text = "; ".join(SECRETS.values())

    async def leaks(context: Context) -> Finding:
        return Finding(
            State.FAIL,
            text if where == "summary" else "",
            (text,) if where == "details" else (),
            publish=(text,) if where == "publish" else (),
            data={"a": [{text: text}]} if where == "data" else {},
        )

    (outcome,) = await installation.run(check(leaks))
    assert "***" in repr(outcome.finding)
    assert "hush" not in repr(outcome.finding)


async def test_text_of_peers_cannot_forge_lines(installation: Installation) -> None:
    async def forged(context: Context) -> Finding:
        return failed("a\r\nok b\x1b[2J", "x" * 5000)

    (outcome,) = await installation.run(check(forged))
    assert outcome.finding.summary == "a\\r\\nok b\\x1b[2J"
    assert len(outcome.finding.details[0]) == 1000
