"""The notifier between a real database and a real API."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import LogLevel, capturedLogs

from relaymail.notify import Notifier
from relaymail.notify.notifier import PACE
from relaymail.settings import Secret
from relaymail.store import outbox
from relaymail.store.database import Database
from tests.conftest import reactor
from tests.notify.api import Answer, Api, Received, silence, status
from tests.notify.rows import pass_time, put, rows, states, until, until_deferred, until_free, until_settled
from tests.support.postgres import PostgresServer

Notifiers = Callable[..., Notifier]

ROOT = Path(__file__).parents[2]

NEVER = 3600.0
"""A poll that does not come during a test: what happens was caused by something else."""


def payloads(count: int) -> list[str]:
    """Bodies that can be told apart."""
    return [json.dumps({"userIds": [], "email": {"id": number}}) for number in range(count)]


def in_turn(*answers: Answer) -> Answer:
    """One answer after another; the last one for good."""
    left = list(answers)

    def answer(received: Received) -> Any:
        return (left.pop(0) if len(left) > 1 else left[0])(received)

    return answer


async def test_what_is_in_the_outbox_at_the_start_is_sent(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    messages = await put(database, *payloads(3))
    notifiers(api_key=Secret("s3cret")).start()
    await until_settled(database)
    assert sorted(api.bodies) == payloads(3)
    assert {request.headers[b"Authorization"][0] for request in api.requests} == {b"ApiKey s3cret"}
    events = await database.query(
        "test.events", "SELECT message_id FROM relaymail.event WHERE kind = 'notified'"
    )
    assert sorted(events) == sorted((message,) for message in messages)


async def test_a_hint_sends_at_once(database: Database, api: Api, notifiers: Notifiers) -> None:
    notifier = notifiers(poll=NEVER)
    notifier.start()
    await put(database, '"first"')
    notifier.hint()
    await until(lambda: len(api.requests) == 1)
    await put(database, '"second"')
    notifier.hint()
    await until(lambda: len(api.requests) == 2)


async def test_a_notify_sends_at_once(database: Database, api: Api, notifiers: Notifiers) -> None:
    notifiers(poll=NEVER).start()
    await put(database, '"first"')
    await database.query("test.notify", f"SELECT pg_notify('{outbox.CHANNEL}', '')")
    await until(lambda: api.requests)


async def test_without_any_hint_the_poll_finds_it(database: Database, api: Api, notifiers: Notifiers) -> None:
    claims: list[str] = []
    notifiers(poll=0.1, crash=claims.append).start()
    await until(lambda: len(claims) > 2)
    await put(database, "{}")
    await until(lambda: api.requests)


async def test_many_hints_cost_nothing_and_few_claims(database: Database, notifiers: Notifiers) -> None:
    claims: list[str] = []
    notifier = notifiers(poll=NEVER, crash=claims.append)
    notifier.start()
    await until(lambda: claims)
    notifier.hint()
    began, before = reactor.seconds(), len(claims)

    def hinted() -> bool:
        for _ in range(1000):
            notifier.hint()
        return len(claims) - before > 3

    await until(hinted)
    assert len(claims) - before <= (reactor.seconds() - began) / PACE + 2


async def test_after_a_503_it_is_sent_again(database: Database, api: Api, notifiers: Notifiers) -> None:
    api.answer = in_turn(status(503), status(204))
    results: list[str] = []
    await put(database, "{}")
    notifiers(poll=NEVER, on_result=results.append).start()
    await until_settled(database)
    assert results == ["unavailable", "sent"]
    assert await rows(database, "attempts, last_error") == [(2, None)]


async def test_retry_after_is_kept(database: Database, api: Api, notifiers: Notifiers) -> None:
    api.answer = status(503, Retry_After="100")
    await put(database, "{}")
    notifiers().start()
    await until_deferred(database, 1)
    ((wait,),) = await rows(database, "extract(epoch FROM due_at - now())::float8")
    assert 50 < wait <= 100


async def test_an_hour_without_the_api_loses_nothing(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    await api.stop()
    await put(database, *payloads(60))
    notifier = notifiers(poll=0.2)
    with capturedLogs() as lines:
        notifier.start()
        await until(lambda: not notifier.endpoint.available)
        await until_deferred(database, 1)
        for _ in range(4):
            await put(database, *payloads(10))
            notifier.hint()
            await pass_time(database, 900)
        assert set(await states(database)) == {"pending"}
        assert sum(number for (number,) in await rows(database, "attempts")) < 30
        api.start()
        await pass_time(database, 300)
        await until_settled(database)
    expected = Counter(payloads(60))
    for _ in range(4):
        expected.update(payloads(10))
    assert Counter(api.bodies) == expected
    ours = [line for line in lines if line["log_namespace"].startswith("relaymail.notify")]
    told = [line for line in ours if line["log_level"] is not LogLevel.debug]
    assert [line["log_level"].name for line in told] == ["warn", "info"]
    assert {line["result"] for line in ours if line["log_level"] is LogLevel.debug} == {"unavailable", "sent"}
    assert told[0]["reason"] == "connection refused"


async def test_with_the_api_away_hints_and_rows_cause_no_requests(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    api.answer = status(429, Retry_After="100")
    claims: list[str] = []
    await put(database, *payloads(20))
    notifier = notifiers(poll=0.05, crash=claims.append)
    notifier.start()
    await until(lambda: not notifier.endpoint.available)
    await until_deferred(database, 1)
    # What was on its way is over
    await until_free(database)
    requests, before, began = len(api.requests), len(claims), reactor.seconds()
    assert requests <= 8

    def hinted() -> bool:
        notifier.hint()
        return bool(reactor.seconds() - began > 0.5)

    await until(hinted)
    assert (len(api.requests), len(claims)) == (requests, before)
    assert [token for (token,) in await rows(database, "lease_token") if token] == []


async def test_a_wrong_key_is_shown_and_tried_slowly(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    api.answer = status(401)
    await put(database, "{}")
    notifier = notifiers()
    with capturedLogs() as lines:
        notifier.start()
        await until_deferred(database, 1)
    assert notifier.endpoint.reason == "HTTP 401 Unauthorized: see Internal:ApiKey"
    assert "HTTP 401" in next(line for line in lines if "reason" in line)["reason"]
    ((error, wait),) = await rows(database, "last_error, extract(epoch FROM due_at - now())::float8")
    assert error == "HTTP 401 Unauthorized: see Internal:ApiKey"
    assert 30 < wait < 75
    api.answer = status(204)
    await pass_time(database, 80)
    await until_settled(database)


async def test_a_row_the_api_does_not_want_holds_up_no_other(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    bad, *good = payloads(30)
    api.answer = lambda received: status(404 if received.body.decode() == bad else 204)(received)
    await put(database, bad, *good)
    notifier = notifiers(poll=NEVER)
    notifier.start()
    await until(lambda: len(api.requests) == 30)
    await until_deferred(database, 30)
    assert await states(database) == ["pending"] + ["sent"] * 29
    assert notifier.endpoint.available


@pytest.mark.parametrize("code", [404, 503])
async def test_what_failed_for_72_hours_is_dead_and_a_retry_revives_it(
    database: Database, api: Api, notifiers: Notifiers, code: int
) -> None:
    api.answer = status(code)
    results: list[str] = []
    await put(database, "{}")
    await pass_time(database, 72 * 3600 - 60)
    notifier = notifiers(poll=0.1, on_result=results.append)
    notifier.start()
    await until_deferred(database, 1)
    assert await states(database) == ["pending"]
    await pass_time(database, 120)
    await until_settled(database, "dead")
    assert results.count("dead") == 1
    ((error,),) = await rows(database, "last_error")
    assert str(code) in error
    api.answer = status(204)
    await outbox.retry_all(database)
    await until_settled(database)


async def test_two_notifiers_send_each_row_once(database: Database, api: Api, notifiers: Notifiers) -> None:
    await put(database, *payloads(200))
    for _ in range(2):
        notifiers(poll=0.1).start()
    await until_settled(database)
    assert Counter(api.bodies) == Counter(payloads(200))


async def test_requests_in_flight_are_bounded(database: Database, api: Api, notifiers: Notifiers) -> None:
    api.answer = silence
    await put(database, *payloads(100))
    notifier = notifiers(poll=0.05, concurrency=4)
    notifier.start()
    await until(lambda: len(api.requests) == 4)
    notifier.hint()
    began = reactor.seconds()
    await until(lambda: reactor.seconds() - began > 0.3)
    assert len(api.requests) == api.connections == 4


async def test_a_stuck_endpoint_is_probed_by_one_and_given_back_the_rest(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    api.answer = silence
    await put(database, *payloads(100))
    notifier = notifiers(deadline=2.0)
    notifier.start()
    await until(lambda: not notifier.endpoint.available)
    assert notifier.endpoint.reason == "no answer within 2 s"
    await until_deferred(database, 8)
    assert len(api.requests) <= 9
    await until(lambda: len(api.requests) == 9)
    api.answer = status(204)
    await pass_time(database, 60)
    notifier.hint()
    await until_settled(database)


async def test_no_row_is_begun_whose_lease_could_end_meanwhile(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    def slowly(received: Received) -> Any:
        reactor.callLater(0.4, received.request.finish)
        return silence(received)

    api.answer = slowly
    points: list[str] = []
    await put(database, *payloads(8))
    # Of each lease one second is left for beginning a request: three of them at most
    notifiers(deadline=30.0, lease=36.0, concurrency=1, poll=NEVER, crash=points.append).start()
    await until_settled(database)
    assert sorted(api.bodies) == payloads(8)
    assert points.count("before-claim") >= 3


async def test_what_a_killed_worker_had_claimed_is_sent_when_its_lease_ends(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    await put(database, *payloads(5))
    await outbox.claim(database, 3, 60)
    notifiers(poll=0.05).start()
    await until_settled(database, "sent", of=2)
    await pass_time(database, 61)
    await until_settled(database)
    assert sorted(api.bodies) == payloads(5)


@pytest.mark.parametrize("point", ["before-claim", "after-notify", "before-mark-sent"])
async def test_a_kill_loses_no_notification(
    database: Database, database_parameters: dict[str, str], api: Api, notifiers: Notifiers, point: str
) -> None:
    await put(database, *payloads(20))
    arguments = ["-m", "tests.notify.worker", json.dumps(database_parameters), api.url, point]
    worker = getProcessOutputAndValue(sys.executable, arguments, env=os.environ, path=str(ROOT))
    # Killed by a signal, it is a failure with a bare tuple
    _, errors, killed = await worker.addErrback(lambda failure: failure.value)
    assert killed == signal.SIGKILL, errors
    before = len(api.requests)
    assert (before == 0) == (point == "before-claim")
    await pass_time(database, 61)
    notifiers().start()
    await until_settled(database)
    # A claim's rows in flight at the kill may be sent twice, no others
    assert set(api.bodies) == set(payloads(20))
    assert len(api.requests) <= 20 + before


async def test_a_stop_lets_requests_end_and_gives_the_rest_back(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    waiting: list[Received] = []

    def later(received: Received) -> Any:
        waiting.append(received)
        return silence(received)

    api.answer = later
    await put(database, *payloads(20))
    notifier = notifiers()
    notifier.start()
    await until(lambda: len(waiting) == 8)

    def answer() -> None:
        for received in waiting:
            received.request.setResponseCode(204)
            received.request.finish()

    reactor.callLater(0.1, answer)
    await notifier.stop(60)
    assert sorted(await states(database)) == ["pending"] * 12 + ["sent"] * 8
    assert await rows(database, "lease_token") == [(None,)] * 20
    assert len(api.requests) == 8


async def test_a_stop_does_not_wait_for_a_stuck_endpoint(
    database: Database, api: Api, notifiers: Notifiers
) -> None:
    api.answer = silence
    await put(database, *payloads(20))
    notifier = notifiers()
    notifier.start()
    await until(lambda: len(api.requests) == 8)
    await notifier.stop(0.1)
    assert await rows(database, "state, attempts, lease_token") == [("pending", 0, None)] * 20
    await until(lambda: api.connections == 0)


async def test_a_lease_must_outlive_a_request(notifiers: Notifiers) -> None:
    with pytest.raises(ValueError, match="lease"):
        notifiers(deadline=10, lease=12)


async def test_a_stop_without_a_start_and_a_second_stop_are_harmless(notifiers: Notifiers) -> None:
    notifier = notifiers()
    await notifier.stop()
    await notifier.stop()
    notifier.hint()


async def test_the_database_may_go_and_come_back(
    postgres: PostgresServer, database: Database, api: Api, notifiers: Notifiers
) -> None:
    notifier = notifiers(poll=0.1)
    notifier.start()
    await put(database, '"before"')
    await until_settled(database)
    answered: list[Received] = []

    def restarting(received: Received) -> Any:
        if not answered:
            postgres.restart()
        answered.append(received)
        return status(204)(received)

    api.answer = restarting
    await put(database, '"meanwhile"')
    await until(lambda: answered)
    await until_settled(database)
    assert api.bodies == ['"before"', '"meanwhile"']


async def test_the_points_at_which_tests_kill_the_process_are_passed_in_order(
    database: Database, notifiers: Notifiers
) -> None:
    points: list[str] = []
    await put(database, "{}")
    notifiers(poll=NEVER, crash=points.append).start()
    await until_settled(database)
    assert [point for point in points if point != "before-claim"] == ["after-notify", "before-mark-sent"]
    assert points[0] == "before-claim"
