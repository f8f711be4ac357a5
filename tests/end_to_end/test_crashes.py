"""``kill -9`` of the host: every message that got its 250 is stored, once, and its notification arrives."""

from __future__ import annotations

import random
import signal
import threading
import time

import pytest

from tests.end_to_end.api import Api
from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import Host
from tests.end_to_end.mail import message, new_message_id
from tests.end_to_end.wire import Closed, Wire
from tests.support.polling import until

POINTS = [
    "before-insert",
    "before-commit",
    "after-commit",
    "after-reply",
    "before-claim",
    "after-notify",
    "before-mark-sent",
]

CRASHES = 4
COUNT = 250
LIMIT = 240.0
"""Seconds for everything to be sent, the hosts' starts included."""


class Sender(threading.Thread):
    """Sends messages as an MTA does: what got no 250 is sent again until it gets one."""

    def __init__(self, host: Host, recipient: str, count: int) -> None:
        super().__init__(daemon=True)
        self._host = host
        self._recipient = recipient
        self._queue = [new_message_id() for _ in range(count)]
        self.accepted: dict[str, str] = {}
        """Message-ID to the id of its 250."""
        self.refused: list[str] = []
        """Replies that would have made the message bounce."""
        self.tries = 0

    def run(self) -> None:
        raws = {message_id: message(message_id=message_id) for message_id in self._queue}
        while self._queue:
            try:
                with Wire(self._host.ports.mx) as wire:
                    assert wire.greeting is not None
                    if wire.greeting.code == 220:
                        wire.hello()
                        self._send_on(wire, raws)
            except (OSError, Closed):
                pass
            time.sleep(0.02)

    def _send_on(self, wire: Wire, raws: dict[str, bytes]) -> None:
        while self._queue:
            message_id = self._queue[0]
            self.tries += 1
            for answer in wire.envelope("friend@example.org", self._recipient):
                self._judge(answer.code, answer.text)
                if answer.code != 250:
                    return
            answer = wire.data(raws[message_id])
            self._judge(answer.code, answer.text)
            if answer.code != 250:
                return
            self.accepted[message_id] = answer.id
            self._queue.pop(0)

    def _judge(self, code: int, text: str) -> None:
        if code >= 500:
            self.refused.append(f"{code} {text}")


def check(host: Host, api: Api, senders: list[Sender]) -> None:
    """Everything accepted is stored once, under the id of its 250, and all of it was notified."""
    accepted = {k: v for sender in senders for k, v in sender.accepted.items()}
    stored = host.rows("SELECT message_id, id::text FROM relaymail.message")
    assert sorted(stored) == sorted(accepted.items())
    emails = {str(id) for (id,) in host.rows('SELECT "Id" FROM public."Emails"')}
    assert len(emails) == len(accepted)
    # What the killed host had claimed is free again when its lease is over, a minute later
    host.rows("UPDATE relaymail.outbox SET lease_until = now() WHERE lease_until IS NOT NULL")
    until(lambda: {request.body["email"]["id"] for request in list(api.requests)} == emails, LIMIT)
    until(lambda: host.row("SELECT count(*) FROM relaymail.outbox WHERE state <> 'sent'") == (0,))
    assert [reply for sender in senders for reply in sender.refused] == []


def send(host: Host, senders: list[Sender]) -> None:
    """Send everything, whatever it takes."""
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(LIMIT)
        assert not sender.is_alive(), host.log


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_point_loses_nothing(
    new_host: MakeHost, database_parameters: dict[str, str], point: str
) -> None:
    api = Api()
    host = new_host({"Api__BaseUrl": api.url}, database=database_parameters)
    usual = dict(host.environ)
    fatal = usual | {"Debug__CrashPoint": point}
    try:
        if point == "before-claim":
            # The first claim is right behind the start: there must be something to claim by then
            api.stop()
            host.start()
            senders = [Sender(host, host.user().address, 3)]
            send(host, senders)
            host.kill()
            api.start()
            host.environ = fatal
            host.launch()
            assert host.ended() == -signal.SIGKILL
            host.environ = usual
            host.launch()
        else:
            host.environ = fatal
            host.start()
            senders = [Sender(host, host.user().address, 2) for _ in range(2)]
            threading.Thread(target=send, args=(host, senders), daemon=True).start()
            assert host.ended() == -signal.SIGKILL
            host.environ = usual
            host.launch()
            until(
                lambda: not any(sender.is_alive() for sender in senders) and len(senders[0].accepted) == 2,
                LIMIT,
            )
        check(host, api, senders)
        if point in {"after-notify", "before-mark-sent"}:
            # The API may hear of a message twice, but never not at all
            bodies = [request.body["email"]["id"] for request in api.requests]
            assert len(bodies) > len(set(bodies))
    finally:
        api.stop()


def test_crashes_at_random_under_load_lose_nothing(new_host: MakeHost) -> None:
    api = Api()
    host = new_host({"Api__BaseUrl": api.url})
    noise = random.Random()
    try:
        host.start()
        user = host.user()
        senders = [Sender(host, user.address, COUNT) for _ in range(6)]
        sending = threading.Thread(target=send, args=(host, senders), daemon=True)
        sending.start()
        for crash in range(1, CRASHES + 1):
            host.until_open()
            # In the middle of what is to be sent in this life, or a little later
            goal = COUNT * len(senders) * (crash + noise.uniform(-0.5, 0.2)) / (CRASHES + 1)
            until(lambda: sum(len(sender.accepted) for sender in senders) >= goal, LIMIT, step=0.002)  # noqa: B023
            host.kill()
            host.launch()
        sending.join(LIMIT)
        check(host, api, senders)
        host.until_logged("Ctrl-C stops it")
        assert host.stop() == 0
        assert host.postgres_processes() == []
    finally:
        api.stop()
