"""Which keys sign for a domain, and who may see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.task import Clock

from relaymail.message.dkim_keys import Algorithm, new_key, read_key
from relaymail.store import dkim
from relaymail.store.database import Database
from relaymail.store.dkim import CACHE_SECONDS, DkimError, DkimKeys, KeysUnusable, NewKey
from tests.conftest import reactor
from tests.support.waiting import until


async def add(
    database: Database,
    domain: str,
    selector: str,
    *,
    algorithm: Algorithm = "ed25519",
    key_file: Path | None = None,
    subdomains: bool = False,
    active: bool = True,
) -> bytes:
    """Add a key and return its PEM."""
    pem = new_key(algorithm)
    if key_file is not None:
        write(key_file, pem)
    key = read_key(pem, domain, selector)
    path = str(key_file) if key_file else None
    await dkim.add(database, [NewKey(key, pem.decode(), path, subdomains, active)])
    return pem


def write(file: Path, octets: bytes) -> None:
    file.write_bytes(octets)


def remove(file: Path) -> None:
    file.unlink()


def keys_of(database: Database, clock: Clock | None = None) -> DkimKeys:
    return DkimKeys(database, clock=clock or Clock(), run=maybeDeferred)


async def selectors(database: Database, domain: str) -> list[str]:
    return [key.selector for key in await keys_of(database).of(domain)]


async def test_the_newest_enabled_key_of_each_algorithm_signs(database: Database) -> None:
    await add(database, "example.test", "old")
    await add(database, "example.test", "new")
    await add(database, "example.test", "rsa", algorithm="rsa")
    await add(database, "example.test", "next", active=False)
    assert await selectors(database, "example.test") == ["rsa", "new"]
    await dkim.set_active(database, "example.test", "new", False)
    assert await selectors(database, "example.test") == ["rsa", "old"]
    await dkim.remove(database, "example.test", "rsa")
    assert await selectors(database, "example.test") == ["old"]
    assert await selectors(database, "other.test") == []


async def test_the_nearest_domain_above_signs_where_it_was_made_for_that(database: Database) -> None:
    await add(database, "example.test", "top", subdomains=True)
    await add(database, "b.example.test", "middle")
    assert await selectors(database, "a.b.example.test") == ["top"]
    assert await selectors(database, "b.example.test") == ["middle"]
    assert await selectors(database, "c.example.test") == ["top"]
    (key,) = await keys_of(database).of("c.example.test")
    assert key.domain == "example.test"
    assert await selectors(database, "notexample.test") == []
    assert await selectors(database, "test") == []


async def test_a_key_signs_what_its_public_half_verifies(database: Database, tmp_path: Path) -> None:
    pem = await add(database, "example.test", "f", key_file=tmp_path / "key.pem")
    (key,) = await keys_of(database).of("example.test")
    public = read_key(pem, "example.test", "f").private.public_key()
    public.verify(key.sign(b"x" * 32), b"x" * 32)  # type: ignore[call-arg]


async def test_a_key_that_cannot_be_read_is_no_reason_to_send_unsigned(
    database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    await add(database, "example.test", "f", key_file=file)
    remove(file)
    keys = keys_of(database)
    for _ in range(2):
        with pytest.raises(KeysUnusable, match="No such file"):
            await keys.of("example.test")
    write(file, new_key("ed25519"))
    with pytest.raises(KeysUnusable, match="not the key"):
        await keys_of(database).of("example.test")
    await add(database, "example.test", "good", algorithm="rsa")
    assert await selectors(database, "example.test") == ["good"]


async def test_what_was_found_is_remembered_for_a_minute(database: Database) -> None:
    clock = Clock()
    keys = keys_of(database, clock)
    assert await keys.of("example.test") == ()
    await add(database, "example.test", "s")
    assert await keys.of("example.test") == ()
    clock.advance(CACHE_SECONDS)
    (found,) = await keys.of("example.test")
    assert (await keys.of("example.test"))[0] is found


async def test_those_who_ask_at_once_share_one_look(database: Database) -> None:
    await add(database, "example.test", "s")
    reads: list[object] = []

    def run(function: Any, *arguments: object) -> Any:
        reads.append(function)
        return maybeDeferred(function, *arguments)

    keys = DkimKeys(database, clock=Clock(), run=run)
    asked = [Deferred.fromCoroutine(keys.of("example.test")) for _ in range(50)]
    asked += [Deferred.fromCoroutine(keys.of("other.test"))]
    *found, other = await gatherResults(asked)
    assert all(each is found[0] for each in found)
    assert len(found[0]) == 1
    assert other == ()
    assert len(reads) == 1


async def test_a_damaged_key_is_found_out(database: Database, tmp_path: Path) -> None:
    """Its public half is as it was, but what it signs is not to be verified."""
    file = tmp_path / "key.pem"
    pem = await add(database, "example.test", "s", algorithm="rsa", key_file=file)
    private = serialization.load_pem_private_key(pem, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    d, p, q = numbers.d + 2, numbers.p, numbers.q
    wrong = rsa.RSAPrivateNumbers(
        p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), numbers.iqmp, numbers.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    octets = wrong.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write(file, octets)
    with pytest.raises(KeysUnusable, match="damaged"):
        await keys_of(database).of("example.test")


async def test_a_change_is_heard_of_at_once(database: Database) -> None:
    keys = keys_of(database)
    keys.listen()
    heard: list[str] = []
    database.listen(dkim.CHANNEL, heard.append)
    await until(reactor, lambda: heard == [""])
    assert await keys.of("example.test") == ()
    await add(database, "example.test", "s")
    await until(reactor, lambda: len(heard) == 2)
    assert len(await keys.of("example.test")) == 1


async def test_a_selector_is_taken_once(database: Database) -> None:
    await add(database, "example.test", "s")
    with pytest.raises(DkimError, match="another selector"):
        await add(database, "example.test", "s")
    with pytest.raises(DkimError, match="no key t"):
        await dkim.set_active(database, "example.test", "t", True)
    assert len(await dkim.list_keys(database)) == 1


async def test_only_the_host_may_see_the_keys(database: Database) -> None:
    rows = await database.query(
        "test.acl",
        "SELECT count(*) FROM pg_class c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a"
        " WHERE c.oid = 'relaymail.dkim_key'::regclass AND a.grantee <> c.relowner",
    )
    assert rows == [(0,)]
