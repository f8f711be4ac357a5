"""Identifiers: ordered, well formed, never twice."""

from __future__ import annotations

import threading
from uuid import RFC_4122, UUID

from relaymail.message.ids import ShortIdSource, UUID7Source, random_id, short_id, uuid7


class Clock:
    def __init__(self, ms: int) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


def test_a_uuid_is_of_version_7_and_carries_the_time() -> None:
    made = UUID7Source(Clock(0x0123_4567_89AB), lambda bits: (1 << bits) - 1)()
    assert made == UUID("01234567-89ab-7fff-bfff-ffffffffffff")
    assert (made.version, made.variant) == (7, RFC_4122)


def test_uuids_ascend_while_the_clock_stands_still_or_goes_back() -> None:
    clock = Clock(1_000_000)
    source = UUID7Source(clock)
    made = [source() for _ in range(1000)]
    clock.ms -= 5000
    made += [source() for _ in range(1000)]
    clock.ms += 5001
    made += [source() for _ in range(1000)]
    assert made == sorted(set(made))


def test_a_full_random_field_goes_on_in_the_next_millisecond() -> None:
    source = UUID7Source(Clock(5), lambda bits: (1 << bits) - 1)
    first, second = source(), source()
    assert first < second
    assert second.int >> 80 == 6
    assert (second.version, second.variant) == (7, RFC_4122)


def test_uuids_of_several_threads_are_all_different() -> None:
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend([uuid7() for _ in range(2000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8000


def test_short_ids_are_12_characters_that_sort_by_time_and_do_not_repeat() -> None:
    clock = Clock(1_800_000_000_000)
    source = ShortIdSource(clock)
    early = {source() for _ in range(5000)}
    clock.ms += 1
    late = source()
    assert len(early) == 5000
    assert max(early) < late
    assert all(len(each) == 12 and set(each) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ") for each in early)
    assert len(short_id()) == 12


def test_the_counter_of_short_ids_wraps() -> None:
    source = ShortIdSource(Clock(1), lambda bits: (1 << bits) - 1)
    assert (source(), source()) == ("00000001ZZZZ", "000000010000")


def test_a_random_id_is_a_uuid_of_version_4_and_every_free_bit_of_it_varies() -> None:
    ids = [UUID(random_id()) for _ in range(200)]
    assert {(each.version, each.variant) for each in ids} == {(4, RFC_4122)}
    ones = zeros = 0
    for each in ids:
        ones |= each.int
        zeros |= ~each.int
    fixed = 0xF << 76 | 0b11 << 62
    assert ones & zeros & (1 << 128) - 1 == ~fixed & (1 << 128) - 1
