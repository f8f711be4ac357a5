"""What an administrator does to accounts."""

from __future__ import annotations

import base64
from typing import Any

import bcrypt
import pytest
from twisted.internet.task import Clock

from relaymail.store.accounts import Accounts
from relaymail.store.administration import AccountError, Administration
from relaymail.store.database import Database
from tests.accounts.conftest import People


@pytest.fixture
def subject(database: Database) -> Administration:
    """On the test's database."""
    return Administration(database)


async def column(database: Database, sql: str) -> Any:
    return (await database.query("test.column", sql))[0][0]


async def test_a_new_user_is_one_of_ours_to_the_api(subject: Administration, database: Database) -> None:
    made = await subject.create_user("anna@example.test", "Anna")
    rows = await database.query(
        "test.user", 'SELECT "Id", "OidcIssuer", "OidcSubject", "Email", "DisplayName" FROM public."Users"'
    )
    assert rows == [(made.id, "relaymail", str(made.id), "anna@example.test", "Anna")]
    assert await subject.list_users() == [made]


@pytest.mark.parametrize("wanted", ["ANNA@example.test", "second@Example.test"])
async def test_an_address_someone_has_is_refused(
    subject: Administration, people: People, wanted: str
) -> None:
    anna = await people.user("anna@example.test")
    await people.address(anna, "second@example.test")
    with pytest.raises(AccountError, match=r"already belongs to anna@example\.test"):
        await subject.create_user(wanted, None)
    bob = await subject.create_user("bob@example.test", None)
    with pytest.raises(AccountError, match=r"already belongs to anna@example\.test"):
        await subject.add_address(bob, wanted, True)


async def test_an_unverified_claim_keeps_nobody_from_an_address(
    subject: Administration, people: People
) -> None:
    squatter = await people.user("bob@example.test")
    await people.address(squatter, "anna@example.test", verified=False)
    assert (await subject.create_user("anna@example.test", None)).email == "anna@example.test"


async def test_a_user_is_found_by_id_and_by_address_in_any_case(subject: Administration) -> None:
    made = await subject.create_user("anna@example.test", None)
    assert await subject.find_user(str(made.id)) == made
    assert await subject.find_user("Anna@Example.test") == made
    with pytest.raises(AccountError, match="no user"):
        await subject.find_user("bob@example.test")


async def test_of_two_users_of_one_address_none_is_taken_by_chance(
    subject: Administration, people: People
) -> None:
    for email in ("twin@example.test", "TWIN@example.test"):
        await people.user(email)
    with pytest.raises(AccountError, match="Several users"):
        await subject.find_user("twin@example.test")


async def test_additional_addresses_are_added_verified_and_removed(
    subject: Administration, database: Database
) -> None:
    anna = await subject.create_user("anna@example.test", None)
    await subject.add_address(anna, "second@example.test", False)
    accounts = Accounts(database, clock=Clock())
    assert await accounts.owner("second@example.test") is None
    with pytest.raises(AccountError, match="unverified"):
        await subject.add_address(anna, "Second@example.test", True)
    await subject.verify_address(anna, "SECOND@example.test")
    assert [(a.address, a.verified) for a in await subject.list_addresses(anna)] == [
        ("second@example.test", True)
    ]
    assert await accounts.owner("second@example.test") is not None
    await subject.remove_address(anna, "second@EXAMPLE.test")
    assert await subject.list_addresses(anna) == []
    for change in (subject.verify_address, subject.remove_address):
        with pytest.raises(AccountError, match="no additional address"):
            await change(anna, "second@example.test")


async def test_verifying_what_another_has_meanwhile_is_refused(
    subject: Administration, people: People
) -> None:
    bob = await subject.create_user("bob@example.test", None)
    await subject.add_address(bob, "anna@example.test", False)
    await people.user("anna@example.test")
    with pytest.raises(AccountError, match="belongs to"):
        await subject.verify_address(bob, "anna@example.test")


async def test_grants_are_kept_in_lower_case_once_and_taken_back(subject: Administration) -> None:
    anna = await subject.create_user("anna@example.test", None)
    for address in ("Info@Example.test", "info@example.test", "@list.test"):
        await subject.grant(anna, address)
    assert [grant.address for grant in await subject.list_grants(anna)] == ["@list.test", "info@example.test"]
    await subject.remove_grant(anna, "INFO@example.test")
    assert [grant.address for grant in await subject.list_grants(anna)] == ["@list.test"]
    with pytest.raises(AccountError, match="no grant"):
        await subject.remove_grant(anna, "info@example.test")


async def test_a_key_is_32_random_bytes_of_which_the_hash_is_kept(
    subject: Administration, database: Database
) -> None:
    anna = await subject.create_user("anna@example.test", None)
    new = await subject.create_key(anna, "laptop", ["smtp", "imap"])
    assert len(base64.b64decode(new.key, validate=True)) == 32
    row = (
        await database.query(
            "test.key",
            'SELECT "Id", "UserId", "Name", "KeyHash", "KeyPrefix", "Scopes" FROM public."SmtpApiKeys"',
        )
    )[0]
    assert (row[0], row[1], row[2], row[4], row[5]) == (
        new.id,
        anna.id,
        "laptop",
        new.key[:12],
        '["smtp", "imap"]',
    )
    assert row[3].split("$")[2] == "11"
    assert bcrypt.checkpw(new.key.encode(), row[3].encode())
    assert new.key not in "".join(map(str, row))
    assert (await subject.create_key(anna, "phone", ["smtp"])).key != new.key


async def test_a_key_can_be_made_for_an_api_without_prefixes(
    subject: Administration, database: Database
) -> None:
    await database.execute("test.old", 'ALTER TABLE public."SmtpApiKeys" DROP COLUMN "KeyPrefix" CASCADE')
    anna = await subject.create_user("anna@example.test", None)
    new = await subject.create_key(anna, "laptop", ["smtp"])
    assert [(key.id, key.prefix) for key in await subject.list_keys(anna)] == [(new.id, None)]
    await subject.revoke_key(str(new.id))


@pytest.mark.parametrize("name", ["", "x" * 101])
async def test_a_name_that_fits_no_column_is_refused(subject: Administration, name: str) -> None:
    anna = await subject.create_user("anna@example.test", None)
    with pytest.raises(AccountError, match="1 to 100"):
        await subject.create_key(anna, name, ["smtp"])


@pytest.mark.parametrize("by", ["id", "prefix"])
async def test_a_key_is_revoked_by_id_or_prefix_and_twice_is_no_error(
    subject: Administration, by: str
) -> None:
    anna = await subject.create_user("anna@example.test", None)
    new = await subject.create_key(anna, "laptop", ["smtp"])
    first = await subject.revoke_key(str(getattr(new, by)))
    assert first.revoked_at is not None
    assert (await subject.revoke_key(str(new.id))).revoked_at == first.revoked_at
    assert [key.revoked_at for key in await subject.list_keys()] == [first.revoked_at]


async def test_a_prefix_of_two_keys_revokes_neither(
    subject: Administration, people: People, database: Database
) -> None:
    anna = await people.user("anna@example.test")
    for _ in range(2):
        await people.key(anna, "A" * 44)
    with pytest.raises(AccountError, match="Several keys"):
        await subject.revoke_key("A" * 12)
    with pytest.raises(AccountError, match="no key"):
        await subject.revoke_key("B" * 12)
    assert await column(database, 'SELECT count("RevokedAt") FROM public."SmtpApiKeys"') == 0
