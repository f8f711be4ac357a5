"""MTA-STS policies in the database."""

from __future__ import annotations

from relaymail.store import mta_sts
from relaymail.store.database import Database
from relaymail.store.mta_sts import ERROR_LIMIT


async def test_a_policy_comes_back_as_it_was_kept(database: Database) -> None:
    assert await mta_sts.read(database, "example.test") is None
    await mta_sts.save(database, "example.test", "1", "version: STSv1\r\n", 1000)
    kept = await mta_sts.read(database, "example.test")
    assert kept is not None
    assert (kept.policy_id, kept.policy, kept.failed_id, kept.retry_in) == (
        "1",
        "version: STSv1\r\n",
        None,
        0,
    )
    assert kept.age is not None
    assert kept.expires_in is not None
    assert 0 <= kept.age < 30
    assert 970 < kept.expires_in <= 1000
    assert await mta_sts.read(database, "other.test") is None


async def test_a_failure_leaves_the_policy_and_a_policy_ends_the_failures(database: Database) -> None:
    await mta_sts.save(database, "example.test", "1", "policy", 1000)
    await mta_sts.save_failure(database, "example.test", "2", "x" * 1000)
    kept = await mta_sts.read(database, "example.test")
    assert kept is not None
    assert (kept.policy_id, kept.policy, kept.failed_id) == ("1", "policy", "2")
    assert 270 < kept.retry_in <= 300
    [(error,)] = await database.query("error", "SELECT last_error FROM relaymail.mta_sts")
    assert len(error) == ERROR_LIMIT
    await mta_sts.save(database, "example.test", "2", "new policy", 1000)
    kept = await mta_sts.read(database, "example.test")
    assert kept is not None
    assert (kept.policy, kept.failed_id, kept.retry_in) == ("new policy", None, 0)


async def test_what_expired_long_ago_is_forgotten(database: Database) -> None:
    for n in range(5):
        await mta_sts.save(database, f"old{n}.test", "1", "policy", -40 * 86_400)
    await mta_sts.save(database, "expired.test", "1", "policy", -20 * 86_400)
    await mta_sts.save(database, "good.test", "1", "policy", 1000)
    await mta_sts.save(database, "failing.test", "1", "policy", -40 * 86_400)
    await mta_sts.save_failure(database, "failing.test", "2", "why")
    await mta_sts.save_failure(database, "never.test", "1", "why")
    assert await mta_sts.purge(database, 30, batch=2) == 5
    left = await database.query("left", "SELECT domain FROM relaymail.mta_sts ORDER BY domain")
    assert [row[0] for row in left] == ["expired.test", "failing.test", "good.test", "never.test"]
