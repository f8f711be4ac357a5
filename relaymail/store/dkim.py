"""The keys that DKIM signatures are made with: which a domain has, and keeping them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from relaymail.message.dkim_keys import Algorithm, KeyProblem, SigningKey, public_text, read_key
from relaymail.store.cache import Seconds, TimedCache
from relaymail.store.coalesce import Coalescer
from relaymail.store.database import Database, DatabaseError

log = Logger()

CHANNEL: Final = "relaymail_dkim"
"""NOTIFY channel that tells every host that keys have changed."""
CACHE_SECONDS: Final = 60.0
DOMAINS_CACHED: Final = 1000
LARGEST_FILE: Final = 64 * 1024
"""Octets of a key file that are read at most."""

_UNIQUE_VIOLATION: Final = "23505"

# A key of a domain above counts where it was made for that; the nearest domain that has any signs
_ACTIVE: Final = """
    SELECT DISTINCT ON (algorithm) domain, selector, private_key, key_file, public_key
    FROM relaymail.dkim_key
    WHERE active AND domain = (
        SELECT domain FROM relaymail.dkim_key
        WHERE active AND domain = ANY (%s::text[]) AND (domain = %s OR subdomains)
        ORDER BY length(domain) DESC LIMIT 1)
      AND (domain = %s OR subdomains)
    ORDER BY algorithm DESC, created_at DESC, selector
"""
_FIELDS: Final = "domain, selector, algorithm, public_key, key_file, subdomains, active, created_at"
_LIST: Final = (
    f"SELECT {_FIELDS} FROM relaymail.dkim_key"
    " WHERE (%s::text IS NULL OR domain = %s) AND (%s::text IS NULL OR selector = %s)"
    " ORDER BY domain, created_at, selector"
)
_ADD: Final = (
    "INSERT INTO relaymail.dkim_key"
    " (domain, selector, algorithm, private_key, key_file, public_key, subdomains, active)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
    f" RETURNING {_FIELDS}"
)
_SET_ACTIVE: Final = (
    f"UPDATE relaymail.dkim_key SET active = %s WHERE domain = %s AND selector = %s RETURNING {_FIELDS}"
)
_REMOVE: Final = f"DELETE FROM relaymail.dkim_key WHERE domain = %s AND selector = %s RETURNING {_FIELDS}"


_Found = tuple[SigningKey, ...] | str
"""The keys of a domain, or why none of them can be read."""


class KeysUnusable(Exception):
    """A domain has active keys, and none can be read; the text is a sentence for the operator."""


class DkimError(Exception):
    """What was asked of the keys cannot be done; the text is a sentence for whoever asked."""


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A key as an operator sees it: everything but its private half."""

    domain: str
    selector: str
    algorithm: Algorithm
    public_key: str
    """``p=`` of the DNS record."""
    key_file: str | None
    subdomains: bool
    active: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be kept; ``pem`` is stored unless ``key_file`` says where it is."""

    key: SigningKey
    pem: str
    key_file: str | None = None
    subdomains: bool = False
    active: bool = False


class DkimKeys:
    """The keys as the host sees them; what is found is remembered for a minute, or until a key changes.

    That none can be read is remembered as well.

    :param run: runs a function in a thread and returns a Deferred: keys are read there.
    """

    def __init__(self, database: Database, *, clock: Seconds, run: Callable[..., Any]) -> None:
        self._database = database
        self._run = run
        self._cache: TimedCache[str, _Found] = TimedCache(clock, lifetime=CACHE_SECONDS, size=DOMAINS_CACHED)
        # Every message asks, and many come at once: those that wait share what the first one finds
        self._lookup: Coalescer[_Found] = Coalescer(self._find_all)

    def listen(self) -> None:
        """Hear of changed keys at once, instead of within a minute."""
        self._database.listen(CHANNEL, lambda _: self._cache.clear())

    async def of(self, domain: str) -> tuple[SigningKey, ...]:
        """The keys that sign for ``domain`` (lower-case A-labels): the newest active one of each algorithm,
        RSA first; none is ``()``.

        They are those of the domain itself, else of the nearest domain above whose keys are for subdomains.
        A key that cannot be read is passed over, with a line in the log.

        :raises KeysUnusable: there are active keys, and not one can be read.
        :raises DatabaseError: the database failed.
        """
        found = self._cache.get(domain)
        if found is None:
            found = await self._lookup.get(domain)
        if isinstance(found, str):
            raise KeysUnusable(found)
        return found or ()

    async def _find_all(self, domains: Sequence[str]) -> dict[str, _Found]:
        return {domain: self._cache.get(domain) or await self._find(domain) for domain in domains}

    async def _find(self, domain: str) -> _Found:
        rows = await self._database.query("dkim.of", _ACTIVE, (_with_parents(domain), domain, domain))
        keys: list[SigningKey] = []
        problems: list[str] = []
        for row in rows:
            try:
                keys.append(await self._run(_load, *row))
            except (KeyProblem, OSError) as error:
                problems.append(f"DKIM key {row[1]} of {row[0]}: {error}")
                log.error("{problem}", problem=problems[-1])
        found: _Found = "; ".join(problems) if problems and not keys else tuple(keys)
        self._cache.put(domain, found)
        return found


async def add(database: Database, keys: Sequence[NewKey]) -> list[DkimKey]:
    """Keep new keys, all or none.

    :raises DkimError: a selector of the domain is taken.
    :raises DatabaseError: the database failed.
    """

    async def body(transaction: Any) -> list[DkimKey]:
        made = [DkimKey(*(await transaction.query(_ADD, _row(new)))[0]) for new in keys]
        await _tell(transaction)
        return made

    try:
        return await database.transaction("dkim.add", body)
    except DatabaseError as error:
        if error.sqlstate == _UNIQUE_VIOLATION:
            taken = ", ".join(new.key.selector for new in keys)
            raise DkimError(
                f"{keys[0].key.domain} has a key {taken} already: give another selector."
            ) from None
        raise


async def list_keys(
    database: Database, domain: str | None = None, selector: str | None = None
) -> list[DkimKey]:
    """The keys of all domains, or of one, or the one with that selector; by domain and age."""
    rows = await database.query("dkim.list", _LIST, (domain, domain, selector, selector))
    return [DkimKey(*row) for row in rows]


async def set_active(database: Database, domain: str, selector: str, active: bool) -> DkimKey:
    """Let a key sign, or no longer. Raises :exc:`DkimError` where there is no such key."""
    return await _change(database, _SET_ACTIVE, (active, domain, selector))


async def remove(database: Database, domain: str, selector: str) -> DkimKey:
    """Forget a key; a file it is in stays. Raises :exc:`DkimError` where there is no such key."""
    return await _change(database, _REMOVE, (domain, selector))


async def _change(database: Database, sql: str, parameters: Sequence[object]) -> DkimKey:
    async def body(transaction: Any) -> DkimKey:
        rows = await transaction.query(sql, parameters)
        if not rows:
            *_, domain, selector = parameters
            raise DkimError(f"{domain} has no key {selector}: `relaymail dkim list` shows them.")
        await _tell(transaction)
        return DkimKey(*rows[0])

    return await database.transaction("dkim.change", body)


async def _tell(transaction: Any) -> None:
    await transaction.query("SELECT pg_notify(%s, '')", (CHANNEL,))


def _row(new: NewKey) -> tuple[object, ...]:
    key = new.key
    pem = None if new.key_file is not None else new.pem
    public = public_text(key)
    return key.domain, key.selector, key.algorithm, pem, new.key_file, public, new.subdomains, new.active


def _with_parents(domain: str) -> list[str]:
    labels = domain.split(".")
    return [".".join(labels[start:]) for start in range(len(labels))]


def _load(domain: str, selector: str, pem: str | None, file: str | None, public: str) -> SigningKey:
    """Read a key; in a thread."""
    octets = pem.encode() if pem is not None else read_file(Path(file or ""))
    key = read_key(octets, domain, selector, prove=False)
    if public_text(key) != public:
        raise KeyProblem("it is not the key whose public half was published")
    if not key.works():
        raise KeyProblem("it is damaged: what it signs cannot be verified")
    return key


def read_file(path: Path) -> bytes:
    """What is in a key file, if it is not far too long for one. Raises ``OSError``."""
    with path.open("rb") as file:
        return file.read(LARGEST_FILE)
