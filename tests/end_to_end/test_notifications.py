"""The API is told of stored mail whatever state it is in, and no sender waits for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.end_to_end.api import Api
from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host, User
from tests.end_to_end.mail import message
from tests.support.polling import until


@pytest.fixture
def own_api() -> Iterator[Api]:
    """An API of the test's own, to be stopped and stalled."""
    api = Api()
    yield api
    api.going.set()
    api.stop()


@pytest.fixture
def own_host(new_host: MakeHost, database_parameters: dict[str, str], own_api: Api) -> Host:
    """A host that notifies it."""
    host = new_host({"Api__BaseUrl": own_api.url}, database=database_parameters)
    host.start()
    return host


@pytest.fixture
def user(own_host: Host) -> User:
    """Who gets the mail."""
    return own_host.user()


def deliver(host: Host, user: User) -> str:
    """Deliver a message, for which no sender may wait; the id of its row of ``Emails``."""
    with host.mx() as wire:
        wire.envelope("friend@example.org", user.address)
        answer = wire.data(message(f"To: {user.address}"))
        return str(host.email(answer.id))


def test_an_api_that_is_down_is_told_after_it_is_back(own_host: Host, user: User, own_api: Api) -> None:
    own_api.stop()
    emails = [deliver(own_host, user) for _ in range(5)]
    until(lambda: own_host.row("SELECT sum(attempts) > 0 FROM relaymail.outbox") == (True,))
    own_api.start()
    for email in emails:
        assert own_api.until_told(email)["userIds"] == [str(user.id)]
    assert len(own_api.requests) == 5


def test_an_api_that_stalls_holds_up_no_mail_and_is_told_in_the_end(
    own_host: Host, user: User, own_api: Api
) -> None:
    own_api.going.clear()
    emails = [deliver(own_host, user) for _ in range(10)]
    assert own_api.requests == []
    own_api.going.set()
    for email in emails:
        own_api.until_told(email)


def test_an_api_that_fails_is_told_again(own_host: Host, user: User, own_api: Api) -> None:
    own_api.status = 503
    email = deliver(own_host, user)
    until(lambda: len(own_api.told(email)) >= 2)
    own_api.status = 204
    before = len(own_api.told(email))
    until(lambda: own_host.row("SELECT state FROM relaymail.outbox") == ("sent",))
    assert len(own_api.told(email)) == before + 1


def test_a_wrong_key_is_retried_slowly_and_at_once_when_asked(
    own_host: Host, user: User, own_api: Api
) -> None:
    own_api.status = 401
    email = deliver(own_host, user)
    until(lambda: own_host.row("SELECT state, attempts FROM relaymail.outbox") == ("pending", 1))
    own_api.status = 204
    (entry,) = json.loads(own_host.cli("outbox", "list", "--json"))
    assert entry["attempts"] == 1
    own_host.cli("outbox", "retry", str(entry["id"]))
    until(lambda: own_host.row("SELECT state FROM relaymail.outbox") == ("sent",))
    assert len(own_api.told(email)) == 2


def test_what_was_not_told_is_told_by_the_next_start(own_host: Host, user: User, own_api: Api) -> None:
    own_api.stop()
    email = deliver(own_host, user)
    assert own_host.stop() == 0
    own_api.start()
    own_host.start()
    own_api.until_told(email)
    assert len(own_api.requests) == 1


def test_two_hosts_on_one_database_tell_once(
    new_host: MakeHost, own_host: Host, user: User, own_api: Api
) -> None:
    other = new_host(own_host.environ)
    other.start()
    emails = [deliver(host, user) for _ in range(15) for host in (own_host, other)]
    for email in emails:
        own_api.until_told(email)
    until(lambda: own_host.row("SELECT count(*) FROM relaymail.outbox WHERE state <> 'sent'") == (0,))
    assert len(own_api.requests) == len(emails)
