"""Notifications of a real server."""

from __future__ import annotations

from relaymail.store.database import Database
from tests.conftest import reactor
from tests.support.postgres import PostgresServer
from tests.support.waiting import until


async def test_notifications_arrive_and_go_on_after_a_restart(
    database: Database, running: PostgresServer
) -> None:
    heard: list[str] = []
    database.listen("a channel", heard.append)
    await until(reactor, lambda: heard == [""])
    await database.query("test.notify", "SELECT pg_notify('a channel', 'one')")
    await until(reactor, lambda: heard == ["", "one"])
    running.restart()
    await until(reactor, lambda: heard == ["", "one", ""])
    await database.query("test.notify", "SELECT pg_notify('a channel', 'two')")
    await until(reactor, lambda: heard == ["", "one", "", "two"])


async def test_channels_can_be_added_while_listening(database: Database) -> None:
    first: list[str] = []
    second: list[str] = []
    database.listen("first", first.append)
    await until(reactor, lambda: first == [""])
    database.listen("second", second.append)
    await until(reactor, lambda: second == [""])
    await database.query("test.notify", "SELECT pg_notify('first', 'a'), pg_notify('second', 'b')")
    await until(reactor, lambda: first == ["", "a"] and second == ["", "b"])
