"""The times at which a recipient is tried again."""

from __future__ import annotations

import itertools

import pytest

from relaymail.delivery.retry import DAY, HOUR, LONGEST_DELAY, MINUTE, Schedule, schedule


def times(schedule: Schedule, *, null_sender: bool = False) -> list[float]:
    """Ages at which it is tried, when every try fails at once."""
    age, tries = 0.0, [0.0]
    while (wait := schedule.wait(len(tries), age, null_sender=null_sender)) is not None:
        age += wait
        tries.append(age)
    return tries


def test_the_usual_schedule_goes_on_for_five_days() -> None:
    tries = times(Schedule(jitter=lambda: 0.5))
    waits = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert waits[:6] == [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR]
    assert set(waits[6:]) == {4 * HOUR}
    assert 5 * DAY <= tries[-1] < 5 * DAY + 4 * HOUR


def test_mail_of_the_null_sender_is_given_up_after_a_day() -> None:
    assert 1 * DAY <= times(Schedule(jitter=lambda: 0.5), null_sender=True)[-1] < 1 * DAY + 4 * HOUR
    own = schedule(delays=[12 * HOUR] * 20)
    assert len(times(own)) == 21
    assert times(own, null_sender=True)[-1] < 2 * DAY


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 0.9), (1.0, 1.1)])
def test_waits_vary_by_a_tenth(jitter: float, factor: float) -> None:
    assert Schedule(jitter=lambda: jitter).wait(1, 0.0, null_sender=False) == pytest.approx(
        5 * MINUTE * factor
    )


def test_the_delays_of_the_settings_come_first() -> None:
    own = schedule(delays=[1.0, 7.0], retries=50, base_delay=3.0)
    assert own.wait(1, 0.0, null_sender=False) == pytest.approx(1.0, rel=0.11)
    assert own.wait(2, 1.0, null_sender=False) == pytest.approx(7.0, rel=0.11)
    assert own.wait(3, 8.0, null_sender=False) is None


def test_retries_double_from_a_base() -> None:
    own = schedule(retries=3, base_delay=2.0)
    waits = [own.wait(n, 0.0, null_sender=False) for n in (1, 2, 3)]
    assert waits == [pytest.approx(2.0 * 2**n, rel=0.11) for n in range(3)]
    assert own.wait(4, 0.0, null_sender=False) is None


def test_one_of_the_two_will_do() -> None:
    assert len(times(schedule(retries=4))) == 5
    assert len(times(schedule(base_delay=1.0))) == 11


def test_without_retries_the_first_try_is_the_last() -> None:
    for none in (schedule(delays=[]), schedule(retries=0)):
        assert none.wait(1, 0.0, null_sender=False) is None
        # A host that is away is left alone all the same
        assert none.pause(1) > MINUTE


def test_no_number_of_retries_overflows() -> None:
    own = schedule(retries=1000, base_delay=1.0)
    assert max(own.delays) == LONGEST_DELAY


def test_what_nobody_tries_is_given_up_too() -> None:
    """Behind a host that is away one message is tried at a time: the others' tries would take for ever."""
    assert Schedule().longest_untried(null_sender=False) == 5 * DAY
    assert Schedule().longest_untried(null_sender=True) == DAY
    assert schedule(retries=3).longest_untried(null_sender=False) == DAY
    own = schedule(delays=[DAY, DAY])
    assert own.longest_untried(null_sender=False) == 4 * DAY
    assert own.longest_untried(null_sender=True) == DAY
    # Whoever is tried has all of the tries
    assert times(own)[-1] < own.longest_untried(null_sender=False)
