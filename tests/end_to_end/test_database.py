"""What clients see of a database that is away, silent, not ready or slow: nothing that bounces mail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.conftest import MakeHost
from tests.end_to_end.host import greets
from tests.end_to_end.mail import message, new_message_id
from tests.support.polling import until
from tests.support.postgres import PostgresServer

SLOW_COMMIT = """
    CREATE TABLE slow (seconds integer);
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(seconds) FROM slow; RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON relaymail.message DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION be_slow();
    INSERT INTO slow VALUES (600)
"""
"""From here on a COMMIT takes ten minutes, as one on a disk that hangs does."""


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, to be stopped."""
    server = PostgresServer()
    server.start()
    yield server
    server.remove()


def test_mail_waits_while_the_database_is_away_and_is_taken_when_it_is_back(
    new_host: MakeHost, own_postgres: PostgresServer
) -> None:
    host = new_host(database=own_postgres.parameters("postgres"))
    host.cli("db", "upgrade", "--standalone")
    own_postgres.stop()
    host.launch()
    until(lambda: greets(host.ports.mx) == 421)
    assert greets(host.ports.submission) == 421
    assert host.stop() == 0
    host.launch()
    until(lambda: greets(host.ports.mx) == 421)
    own_postgres.start()
    host.until_open()
    user = host.user()
    assert host.export(host.deliver(message(), user.address))
    with host.mx() as wire:
        own_postgres.stop()
        until(lambda: greets(host.ports.mx) == 421)
        assert wire.command("MAIL FROM:<friend@example.org>").code == 250
        # A look-up waits for the database for a few seconds: most restarts are over by then
        wire.send(b"RCPT TO:<nobody@example.test>\r\nRSET\r\n")
        own_postgres.start()
        assert [wire.reply().start for _ in range(2)] == ["550 5.1.1", "250 2.0.0"]
        host.until_open()
        assert wire.message(message(), "friend@example.org", user.address).code == 250
    assert host.stop() == 0


def test_the_tables_of_the_api_are_waited_for(
    new_host: MakeHost, empty_database_parameters: dict[str, str]
) -> None:
    host = new_host(database=empty_database_parameters)
    host.launch()
    host.until_logged("the database lacks tables of the API")
    assert greets(host.ports.mx) == 421
    assert host.rows("SELECT to_regclass('public.\"Emails\"')") == [(None,)]
    host.cli("db", "upgrade", "--standalone")
    host.until_open()
    assert host.deliver(message(), host.user().address)


def test_a_database_that_dies_during_data_costs_a_451_and_the_resend_is_stored_once(
    new_host: MakeHost,
) -> None:
    host = new_host()
    host.start()
    user = host.user()
    message_id = new_message_id()
    raw = message(message_id=message_id)
    with host.mx() as wire:
        wire.envelope("friend@example.org", user.address)
        wire.command("DATA")
        wire.send(raw)
        host.kill_postgres()
        wire.send(b".\r\n")
        first = wire.reply()
        assert first.start in {"451 4.3.0", "250 2.0.0"}, first
        host.until_logged("PostgreSQL runs again")
        host.until_open()
        assert wire.message(raw, "friend@example.org", user.address).code == 250
    assert host.stored(message_id) == 1


def test_a_silent_database_costs_a_451_and_the_resend_is_stored_once(
    new_host: MakeHost, own_postgres: PostgresServer
) -> None:
    parameters = own_postgres.parameters("postgres")
    host = new_host({"Smtp__Timeouts__Store": "5"}, database=parameters)
    host.cli("db", "upgrade", "--standalone")
    host.start()
    user = host.user()
    raws = [message(message_id=new_message_id(), sender=user.address) for _ in range(3)]
    wires = [host.mx(), host.mx(), host.submission(user)]
    for wire in wires:
        wire.envelope(user.address, user.address)
        wire.command("DATA")
    own_postgres.freeze()
    for wire, raw in zip(wires, raws, strict=True):
        wire.send(raw + b".\r\n")
    assert {wire.reply().start for wire in wires} == {"451 4.3.0"}
    own_postgres.thaw()
    for wire, raw in zip(wires, raws, strict=True):
        assert host.export(wire.message(raw, user.address, user.address).id) == raw
        wire.close()
    assert host.row("SELECT count(*) FROM relaymail.message") == (len(raws),)


def test_a_commit_that_hangs_and_is_lost_behind_the_451_never_stores_an_empty_message(
    new_host: MakeHost, postgres: PostgresServer, database_parameters: dict[str, str]
) -> None:
    host = new_host({"Smtp__Timeouts__Store": "5"}, database=database_parameters)
    host.start()
    user = host.user()
    host.rows(SLOW_COMMIT)
    raw = message()
    with host.mx() as wire:
        assert wire.message(raw, "friend@example.org", user.address).start == "451 4.3.0"
        host.rows("DELETE FROM slow")
        committing = "SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'"
        ((pid,),) = host.rows(committing)
        host.rows("SELECT pg_terminate_backend(%s, 5000)", pid)
        assert host.export(wire.message(raw, "friend@example.org", user.address).id) == raw
    assert host.row("SELECT count(*) FROM relaymail.message") == (1,)
    assert host.row("SELECT count(*) FROM relaymail.message_part WHERE content = %s", raw) == (1,)
