"""Waiting after wrong passwords."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from relaymail.hosting import login_limiter
from relaymail.hosting.login_limiter import FailedLoginLimiter


def limiter(clock: Clock, attempts: int = 5) -> FailedLoginLimiter:
    return FailedLoginLimiter(clock, attempts, lockout_window=900.0, base_backoff=1.0, max_backoff=5.0)


def test_an_unknown_client_goes_at_once() -> None:
    assert limiter(Clock()).check("192.0.2.1") == 0


def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    clock = Clock()
    subject = limiter(clock, attempts=10)
    waits = []
    for _ in range(5):
        subject.failed("192.0.2.1")
        waits.append(subject.check("192.0.2.1"))
        clock.advance(waits[-1])
        assert subject.check("192.0.2.1") == 0
    assert waits == [1, 2, 4, 5, 5]


def test_the_last_allowed_failure_locks_out_until_the_first_is_out_of_the_window() -> None:
    clock = Clock()
    subject = limiter(clock)
    for _ in range(5):
        subject.failed("192.0.2.1")
        clock.advance(10)
    assert subject.check("192.0.2.1") == 900 - 50
    clock.advance(850)
    assert subject.check("192.0.2.1") == 0


def test_failures_during_a_lockout_extend_it() -> None:
    clock = Clock()
    subject = limiter(clock)
    for _ in range(10):
        subject.failed("192.0.2.1")
        clock.advance(100)
    assert subject.check("192.0.2.1") == 900 - 500


def test_other_clients_are_not_touched() -> None:
    subject = limiter(Clock())
    for _ in range(9):
        subject.failed("192.0.2.1")
    assert subject.check("192.0.2.2") == 0


def test_a_right_password_wipes_the_slate() -> None:
    subject = limiter(Clock())
    for _ in range(4):
        subject.failed("192.0.2.1")
    subject.succeeded("192.0.2.1")
    assert subject.check("192.0.2.1") == 0
    assert len(subject) == 0


@pytest.mark.parametrize(
    ("failing", "same"),
    [
        ("2001:db8:1:2:3::4", "2001:db8:1:2::1"),
        ("2001:db8:1:2::1%eth0", "2001:0db8:0001:0002::2"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unix", "unix"),
    ],
)
def test_addresses_of_one_client_count_together(failing: str, same: str) -> None:
    subject = limiter(Clock())
    subject.failed(failing)
    assert subject.check(same) == 1


@pytest.mark.parametrize(
    ("failing", "other"),
    [("2001:db8:1:2::1", "2001:db8:1:3::1"), ("::ffff:192.0.2.1", "::ffff:192.0.2.2")],
)
def test_addresses_of_different_clients_do_not(failing: str, other: str) -> None:
    subject = limiter(Clock())
    subject.failed(failing)
    assert subject.check(other) == 0


def test_memory_is_bounded_and_the_oldest_failure_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_limiter, "CLIENTS_KEPT", 3)
    subject = limiter(Clock())
    for n in (1, 2, 3, 1, 4):
        subject.failed(f"192.0.2.{n}")
    assert len(subject) == 3
    assert [subject.check(f"192.0.2.{n}") > 0 for n in (1, 2, 3, 4)] == [True, False, True, True]


def test_a_client_whose_failures_are_old_takes_no_memory() -> None:
    clock = Clock()
    subject = limiter(clock)
    subject.failed("192.0.2.1")
    clock.advance(900)
    assert subject.check("192.0.2.1") == 0
    assert len(subject) == 0


def test_a_huge_number_of_allowed_attempts_is_no_trouble() -> None:
    subject = limiter(Clock(), attempts=100_000)
    for _ in range(2000):
        subject.failed("192.0.2.1")
    assert subject.check("192.0.2.1") == 5


async def test_tries_under_way_are_no_more_than_may_fail() -> None:
    subject = limiter(Clock(), attempts=3)
    ends: list[Deferred[None]] = []
    refused = 0

    async def guess(client: str) -> None:
        nonlocal refused
        async with subject.turn(client):
            if subject.check(client) > 0:
                refused += 1
                return
            ends.append(Deferred())
            await ends[-1]
            subject.failed(client)

    guesses = [Deferred.fromCoroutine(guess(f"2001:db8::{n}")) for n in range(50)]
    other = Deferred.fromCoroutine(guess("192.0.2.1"))
    assert len(ends) == 4
    for end in ends:
        end.callback(None)
    for done in (*guesses, other):
        await done
    assert (len(ends), refused) == (4, 47)
    assert subject._turns == {}


async def test_a_try_that_is_given_up_while_it_waits_takes_no_turn() -> None:
    subject = limiter(Clock(), attempts=1)
    end: Deferred[None] = Deferred()

    async def guess() -> None:
        async with subject.turn("192.0.2.1"):
            await end

    first, second = Deferred.fromCoroutine(guess()), Deferred.fromCoroutine(guess())
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    end.callback(None)
    await first
    assert subject._turns == {}


@pytest.mark.parametrize(("attempts", "clients"), [(1, 3), (3, 2000)])
async def test_all_who_wait_are_answered_when_the_client_is_locked_out(attempts: int, clients: int) -> None:
    """However many there are: a webmail on an exempt network opens as many connections as it likes."""
    subject = limiter(Clock(), attempts)
    ends: list[Deferred[None]] = []

    async def guess() -> str:
        async with subject.turn("192.0.2.1"):
            if subject.check("192.0.2.1") > 0:
                return "refused"
            ends.append(Deferred())
            await ends[-1]
            subject.failed("192.0.2.1")
            return "failed"

    guesses = [Deferred.fromCoroutine(guess()) for _ in range(clients)]
    for end in ends:
        end.callback(None)
    answers = [getattr(guess, "result", None) for guess in guesses]
    assert answers == ["failed"] * attempts + ["refused"] * (clients - attempts)
    assert subject._turns == {}
