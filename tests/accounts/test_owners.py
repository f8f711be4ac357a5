"""Who owns an address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock

from relaymail.store.accounts import _OWNERS, Accounts, Owner
from relaymail.store.database import Database
from tests.accounts.conftest import People


class Counting:
    """Counts the statements a database is asked to run."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.statements: list[str] = []

    async def query(self, name: str, sql: str, params: Sequence[object] = (), **options: Any) -> Any:
        self.statements.append(name)
        return await self.database.query(name, sql, params, **options)


def accounts(database: Any, clock: Clock | None = None) -> Accounts:
    return Accounts(database, clock=clock or Clock())


async def test_own_and_verified_addresses_have_an_owner_in_any_case(
    database: Database, people: People
) -> None:
    anna = await people.user("Anna@Example.test")
    await people.address(anna, "a.smith@Example.TEST")
    found = await accounts(database).owners(["ANNA@example.test", "A.Smith@example.test", "bob@example.test"])
    assert found == {
        "anna@example.test": Owner(anna, "Anna@Example.test"),
        "a.smith@example.test": Owner(anna, "a.smith@Example.TEST"),
    }


async def test_an_unverified_address_takes_no_mail(database: Database, people: People) -> None:
    bob = await people.user("bob@example.test")
    await people.address(bob, "anna@example.test", verified=False)
    assert await accounts(database).owner("anna@example.test") is None


async def test_an_unverified_claim_of_an_older_user_takes_nothing_from_its_owner(
    database: Database, people: People
) -> None:
    old = await people.user("old@example.test", age=9)
    await people.address(old, "anna@example.test", verified=False)
    anna = await people.user("anna@example.test")
    assert await accounts(database).owner("anna@example.test") == Owner(anna, "anna@example.test")


async def test_of_several_claims_the_oldest_user_wins_with_one_warning(
    database: Database, people: People, logged: list[dict[str, Any]]
) -> None:
    await people.user("shared@example.test", age=1)
    oldest = await people.user("old@example.test", age=5)
    await people.address(oldest, "Shared@example.test")
    await people.user("SHARED@example.test", age=3)
    subject = accounts(database)
    for _ in range(2):
        found = await subject.owners(["shared@example.test"])
        assert found["shared@example.test"].user_id == oldest
    warnings = [event for event in logged if event.get("address") == "shared@example.test"]
    assert len(warnings) == 1
    assert warnings[0]["kept"] == oldest


async def test_users_made_at_the_same_time_are_told_apart_by_id(database: Database, people: People) -> None:
    small, large = UUID(int=1), UUID(int=2)
    for user in (large, small):
        await people.user("twin@example.test", user_id=user)
    owner = await accounts(database).owner("twin@example.test")
    assert owner is not None
    assert owner.user_id == small


async def test_letters_beyond_ascii_match_in_any_case(database: Database, people: People) -> None:
    jose = await people.user("JOSÉ@example.test")
    assert await accounts(database).owner("josé@example.test") == Owner(jose, "JOSÉ@example.test")


async def test_an_owner_is_remembered_for_a_second(database: Database, people: People) -> None:
    anna = await people.user("anna@example.test")
    clock, counting = Clock(), Counting(database)
    subject = accounts(counting, clock)
    assert subject.cached_owner("anna@example.test") is None
    await subject.owner("Anna@example.test")
    clock.advance(0.9)
    assert subject.cached_owner("anna@EXAMPLE.test") == Owner(anna, "anna@example.test")
    await subject.owner("anna@example.test")
    assert len(counting.statements) == 1
    clock.advance(0.1)
    assert subject.cached_owner("anna@example.test") is None
    await subject.owner("anna@example.test")
    assert len(counting.statements) == 2


async def test_that_nobody_has_an_address_is_not_remembered(database: Database, people: People) -> None:
    subject = accounts(database)
    assert await subject.owner("new@example.test") is None
    new = await people.user("new@example.test")
    assert await subject.owner("new@example.test") == Owner(new, "new@example.test")


async def test_lookups_at_the_same_time_are_few_queries(database: Database, people: People) -> None:
    users = [await people.user(f"user{n}@example.test") for n in range(20)]
    counting = Counting(database)
    subject = accounts(counting)
    lookups = [Deferred.fromCoroutine(subject.owner(f"user{n}@example.test")) for n in range(20)]
    found = await gatherResults(lookups)
    assert [owner and owner.user_id for owner in found] == users
    # Two, unless the server is quicker with an answer than we are with the next question
    assert len(counting.statements) < 10


async def test_addresses_no_database_could_hold_are_nobodys_and_harm_no_other(
    database: Database, people: People
) -> None:
    anna = await people.user("anna@example.test")
    subject = accounts(database)
    odd = ["a\0b@example.test", "\ud800@example.test", "x" * 400 + "@example.test", ""]
    assert await subject.owners([*odd, "anna@example.test"]) == {
        "anna@example.test": Owner(anna, "anna@example.test")
    }
    assert [await subject.owner(address) for address in odd] == [None] * 4


async def test_the_lookup_uses_the_indexes(database: Database) -> None:
    await database.execute(
        "test.many",
        'INSERT INTO public."Users" ("Id", "OidcSubject", "OidcIssuer", "Email", "CreatedAt") '
        "SELECT gen_random_uuid(), n::text, 'test', 'user' || n || '@example.test', now() "
        "FROM generate_series(1, 5000) n",
    )
    await database.execute("test.analyze", 'ANALYZE public."Users"')
    wanted = ["user7@example.test", "nobody@example.test"]
    plan = "\n".join(row[0] for row in await database.query("test.plan", f"EXPLAIN {_OWNERS}", (wanted,)))
    assert "relaymail_users_email" in plan


async def test_a_login_sends_as_own_verified_and_granted_addresses(
    database: Database, people: People
) -> None:
    anna = await people.user("Anna@example.test")
    await people.address(anna, "Second@example.test")
    await people.address(anna, "third@example.test", verified=False)
    await database.execute(
        "test.grant",
        "INSERT INTO relaymail.sender_grant (user_id, address) VALUES (%s, '@list.test'), "
        "(%s, 'info@example.test')",
        (anna, anna),
    )
    await people.user("bob@example.test")
    assert await accounts(database).sender_addresses(anna) == {
        "anna@example.test",
        "second@example.test",
        "info@example.test",
        "@list.test",
    }


async def test_sender_addresses_are_remembered_for_a_second(database: Database, people: People) -> None:
    anna = await people.user("anna@example.test")
    clock, counting = Clock(), Counting(database)
    subject = accounts(counting, clock)
    await subject.sender_addresses(anna)
    await people.address(anna, "new@example.test")
    assert "new@example.test" not in await subject.sender_addresses(anna)
    clock.advance(1)
    assert "new@example.test" in await subject.sender_addresses(anna)
    assert len(counting.statements) == 2
