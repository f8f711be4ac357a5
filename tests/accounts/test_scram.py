"""SCRAM logins on a real database: salts, live keys, and when SCRAM can be offered."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from twisted.internet.task import Clock

from relaymail.hosting.authenticator import AuthenticationFailed, AuthenticationUnavailable
from relaymail.hosting.scram import CHECK_INTERVAL, ScramLogins, ScramOffer
from relaymail.smtp import scram
from relaymail.smtp.scram import Salting
from relaymail.store.administration import Administration, NewKey, User
from relaymail.store.database import Database, DatabaseError
from relaymail.store.scram import ITERATIONS, SALT_OCTETS, ScramKeys, Verifier
from tests.accounts.conftest import People
from tests.conftest import reactor
from tests.support.scram import ScramClient
from tests.support.waiting import until

ANNA = "Anna@example.test"


@pytest.fixture
def administration(database: Database) -> Administration:
    """Makes keys as the command line does."""
    return Administration(database)


@pytest.fixture
def keys(database: Database) -> ScramKeys:
    """On the test's database."""
    return ScramKeys(database)


@pytest.fixture
def away(database_parameters: dict[str, str]) -> Database:
    """A database that is not there: the client was never started."""
    return Database(database_parameters, reactor=reactor)


@pytest.fixture
def used() -> list[UUID]:
    """The keys that were logged in with."""
    return []


@pytest.fixture
def subject(keys: ScramKeys, used: list[UUID]) -> ScramLogins:
    """On the test's database."""
    return ScramLogins(keys, used.append)


async def key(administration: Administration, user: User, *scopes: str) -> NewKey:
    return await administration.create_key(user, "test", scopes or ["smtp"])


async def log_in(subject: ScramLogins, login: str, password: str) -> Verifier:
    """The whole exchange; the key that was found."""
    client = ScramClient(login, password)
    first = scram.client_first(client.first())
    salt = await subject.salt(first.login)
    answer = scram.server_first(first, Salting(salt.salt, salt.iterations), "nonce")
    proof = scram.client_final(client.final(answer.encode()), first, answer, b"")
    found = await subject.key(first.login, proof.fits)
    assert client.trusts(proof.server_final(found.server_key))
    return found


async def fails(attempt: Awaitable[object]) -> bool:
    try:
        await attempt
    except AuthenticationFailed:
        return True
    return False


async def test_each_new_key_logs_in_in_any_case_of_the_address(
    subject: ScramLogins, administration: Administration
) -> None:
    anna = await administration.create_user(ANNA, None)
    made = [await key(administration, anna), await key(administration, anna, "imap", "smtp")]
    for new in made:
        found = await log_in(subject, "ANNA@Example.test", new.key)
        assert (found.key_id, found.user_id, found.email) == (new.id, anna.id, ANNA)
    assert await fails(log_in(subject, ANNA, made[0].key.swapcase()))


async def test_nobody_logs_in_with_the_key_of_another(
    subject: ScramLogins, administration: Administration
) -> None:
    anna = await administration.create_user(ANNA, None)
    bob = await administration.create_user("bob@example.test", None)
    await key(administration, anna)
    bobs = await key(administration, bob)
    assert await fails(log_in(subject, ANNA, bobs.key))
    assert await fails(log_in(subject, "nobody@example.test", bobs.key))


async def test_a_key_without_the_scope_for_sending_does_not_log_in(
    subject: ScramLogins, administration: Administration
) -> None:
    anna = await administration.create_user(ANNA, None)
    assert await fails(log_in(subject, ANNA, (await key(administration, anna, "imap")).key))


async def test_a_key_that_was_revoked_behind_the_salt_does_not_log_in(
    subject: ScramLogins, administration: Administration, database: Database
) -> None:
    anna = await administration.create_user(ANNA, None)
    first, second = await key(administration, anna), await key(administration, anna)
    client = ScramClient(ANNA, second.key)
    message = scram.client_first(client.first())
    salt = await subject.salt(ANNA)
    answer = scram.server_first(message, Salting(salt.salt, salt.iterations), "nonce")
    proof = scram.client_final(client.final(answer.encode()), message, answer, b"")
    # As the API does it, which knows nothing of verifiers
    await database.execute(
        "test.revoke", 'UPDATE public."SmtpApiKeys" SET "RevokedAt" = now() WHERE "Id" = %s', (second.id,)
    )
    assert await fails(subject.key(ANNA, proof.fits))
    assert (await log_in(subject, ANNA, first.key)).key_id == first.id


async def test_the_command_line_forgets_the_verifier_of_a_key_it_revokes(
    subject: ScramLogins, administration: Administration, database: Database
) -> None:
    anna = await administration.create_user(ANNA, None)
    gone, kept = await key(administration, anna), await key(administration, anna)
    await administration.revoke_key(str(gone.id))
    rows = await database.query("test.verifiers", "SELECT key_id FROM relaymail.scram_verifier")
    assert rows == [(kept.id,)]
    assert await fails(log_in(subject, ANNA, gone.key))


async def test_a_key_and_its_verifier_are_made_together_or_not_at_all(
    administration: Administration, database: Database
) -> None:
    anna = await administration.create_user(ANNA, None)
    await database.execute(
        "test.break", "ALTER TABLE relaymail.scram_verifier ADD CHECK (octet_length(stored_key) = 1)"
    )
    with pytest.raises(DatabaseError):
        await key(administration, anna)
    assert await administration.list_keys() == []


async def test_keys_of_a_database_of_an_older_api_get_a_verifier_too(
    subject: ScramLogins, administration: Administration, database: Database
) -> None:
    await database.execute("test.old", 'ALTER TABLE public."SmtpApiKeys" DROP COLUMN "KeyPrefix"')
    anna = await administration.create_user(ANNA, None)
    new = await key(administration, anna)
    assert (await log_in(subject, ANNA, new.key)).key_id == new.id


async def test_a_name_gets_one_salt_for_ever_whether_somebody_has_it_or_not(
    subject: ScramLogins, administration: Administration, people: People, database: Database
) -> None:
    before = await subject.salt("anna@example.test")
    assert (len(before.salt), before.iterations) == (SALT_OCTETS, ITERATIONS)
    assert await subject.salt("ANNA@EXAMPLE.TEST") == before
    anna = await administration.create_user(ANNA, None)
    assert await subject.salt(ANNA) == before
    new = await key(administration, anna)
    assert await subject.salt(ANNA) == before
    await administration.revoke_key(str(new.id))
    assert await subject.salt(ANNA) == before
    assert await subject.salt("bob@example.test") != before
    # A host that was restarted, or another one
    assert await ScramLogins(ScramKeys(database), lambda key: None).salt("anna@example.test") == before


async def test_the_keys_of_a_user_who_gets_another_address_stay_good(
    subject: ScramLogins, administration: Administration, database: Database
) -> None:
    anna = await administration.create_user(ANNA, None)
    first = await key(administration, anna)
    await database.execute("test.marry", 'UPDATE public."Users" SET "Email" = %s', ("ann@example.org",))
    second = await key(administration, replace(anna, email="ann@example.org"))
    for new in (first, second):
        assert (await log_in(subject, "ann@example.org", new.key)).key_id == new.id
    assert await fails(log_in(subject, ANNA, first.key))


async def test_two_users_with_one_address_both_log_in(
    subject: ScramLogins, administration: Administration, people: People
) -> None:
    anna = await administration.create_user(ANNA, None)
    new = await key(administration, anna)
    older = await people.user(ANNA.upper(), age=10)
    other = await key(administration, await administration.find_user(str(older)))
    assert (await log_in(subject, ANNA, new.key)).user_id == anna.id
    assert (await log_in(subject, ANNA, other.key)).user_id == older


@pytest.mark.parametrize("login", ["", "a\0b", "\ud800", "x" * 400])
async def test_a_name_that_no_database_holds_is_nobodys(subject: ScramLogins, login: str) -> None:
    assert len((await subject.salt(login)).salt) == SALT_OCTETS
    assert await fails(subject.key(login, lambda stored_key: True))


async def test_a_name_that_nobody_has_costs_a_check_too(subject: ScramLogins) -> None:
    checked: list[bytes] = []

    def fits(stored_key: bytes) -> bool:
        checked.append(stored_key)
        return True

    assert await fails(subject.key("nobody@example.test", fits))
    assert len(checked) == 1


async def test_without_a_database_nobody_is_refused_for_good(away: Database) -> None:
    subject = ScramLogins(ScramKeys(away), lambda key: None)
    with pytest.raises(AuthenticationUnavailable):
        await subject.salt(ANNA)
    with pytest.raises(AuthenticationUnavailable):
        await subject.key(ANNA, lambda stored_key: True)


# The offer


@pytest.fixture
def offer(keys: ScramKeys) -> ScramOffer:
    """Looked at by hand."""
    return ScramOffer(keys, reactor=Clock())


def warnings(logged: list[dict[str, Any]]) -> list[int]:
    """The counts in what was warned of."""
    return [event["count"] for event in logged if "Smtp:Scram" in (event.get("log_format") or "")]


async def test_scram_is_offered_while_every_live_key_for_sending_has_a_verifier(
    offer: ScramOffer,
    administration: Administration,
    people: People,
    logged: list[dict[str, Any]],
) -> None:
    assert not offer.offered()
    anna = await administration.create_user(ANNA, None)
    await key(administration, anna)
    await people.key(anna.id, "for reading", scopes='["imap"]')
    await people.key(anna.id, "gone", revoked=True)
    await people.key(anna.id, "broken", scopes="smtp")
    await offer.look()
    assert offer.offered()
    made = [await people.key(anna.id, f"of the API {n}", scopes='["imap", "smtp"]') for n in range(2)]
    await offer.look()
    await offer.look()
    assert not offer.offered()
    assert warnings(logged) == [2]
    for id in made:
        assert not offer.offered()
        await administration.revoke_key(str(id))
        await offer.look()
    assert offer.offered()
    assert warnings(logged) == [2, 1]


async def test_it_is_looked_at_again_and_again_and_stays_while_the_database_is_away(
    keys: ScramKeys, people: People, database: Database, away: Database
) -> None:
    clock = Clock()
    offer = ScramOffer(keys, reactor=clock)
    offer.start()
    await until(reactor, offer.offered)
    keys._database = away
    await offer.look()
    assert offer.offered()
    keys._database = database
    anna = await people.user(ANNA)
    await people.key(anna, "of the API")
    clock.advance(CHECK_INTERVAL)
    await until(reactor, lambda: not offer.offered())
    await offer.stop()
    assert clock.getDelayedCalls() == []
