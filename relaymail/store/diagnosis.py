"""What a database says of itself and of the mail in it, for ``relaymail doctor``. Nothing here changes a row.

Every function raises :class:`~relaymail.store.database.DatabaseError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from relaymail.store.database import Database

SHOWN: Final = 5
"""Examples given of what is counted."""
NEWEST: Final = 100_000
"""Messages looked through, newest first: a fault that is older has been told of."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server is."""

    version: int
    """``server_version_num``: 140005 is 14.5."""
    fsync: bool
    full_page_writes: bool
    encoding: str
    """Of the database."""
    name: str
    """Of the database."""
    user: str


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows there are of something, and examples."""

    count: int
    examples: Sequence[str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Rows that should have been worked on by now."""

    count: int
    seconds: float
    """How long the oldest of them has been waiting; 0 where there is none."""


_SERVER: Final = """
SELECT current_setting('server_version_num')::int, current_setting('fsync') = 'on',
       current_setting('full_page_writes') = 'on', current_setting('server_encoding'),
       current_database()::text, current_user::text
"""

# The columns are read with "to_regclass" so that a table that does not exist is no error here
_PRIVILEGES: Final = """
SELECT wanted.label
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) WITH ORDINALITY
     AS wanted (label, relation, privilege, "column", n)
WHERE to_regclass(wanted.relation) IS NOT NULL
  AND NOT CASE WHEN wanted."column" = ''
               THEN has_table_privilege(to_regclass(wanted.relation), wanted.privilege)
               ELSE has_column_privilege(to_regclass(wanted.relation), wanted."column", wanted.privilege) END
ORDER BY wanted.n
"""

_OWN_TABLES: Final = """
SELECT c.relname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'relaymail' AND c.relkind IN ('r', 'p')
  -- Several privileges in one call are an "or"
  AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
           AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
ORDER BY 1
"""

_SCHEMAS: Final = """
SELECT has_schema_privilege('public', 'USAGE'),
       CASE WHEN to_regnamespace('relaymail') IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('relaymail', 'USAGE')
                 AND has_schema_privilege('relaymail', 'CREATE') END,
       to_regnamespace('relaymail') IS NULL
"""

_SHARED_RIGHTS: Final = (
    *(
        (f'public."{table}"', "SELECT", "")
        for table in (
            "Users",
            "UserEmailAddresses",
            "SmtpApiKeys",
            "Emails",
            "EmailRecipients",
            "EmailAttachments",
        )
    ),
    ('public."SmtpApiKeys"', "UPDATE", "LastUsedAt"),
    ('public."Emails"', "INSERT", ""),
    ('public."EmailRecipients"', "INSERT", ""),
    ('public."EmailAttachments"', "INSERT", ""),
)
"""Table, privilege, column (or none): what the host does to the shared tables."""

_WITHOUT_RECIPIENTS: Final = """
WITH lost AS (
    SELECT newest.id FROM (SELECT id FROM relaymail.message ORDER BY id DESC LIMIT %s) AS newest
    WHERE NOT EXISTS (SELECT FROM relaymail.envelope_recipient r WHERE r.message_id = newest.id)
)
SELECT (SELECT count(*) FROM lost), ARRAY(SELECT id::text FROM lost ORDER BY id DESC LIMIT %s)
"""

_WITHOUT_BYTES: Final = """
WITH lost AS (
    SELECT newest.id
    FROM (SELECT id, size_bytes FROM relaymail.message ORDER BY id DESC LIMIT %s) AS newest
    WHERE newest.size_bytes > 0
      AND NOT EXISTS (SELECT FROM relaymail.message_part p WHERE p.message_id = newest.id)
)
SELECT (SELECT count(*) FROM lost), ARRAY(SELECT id::text FROM lost ORDER BY id DESC LIMIT %s)
"""

# The IMAP host cannot open a mailbox in which one message is twice
_TWICE_IN_A_MAILBOX: Final = """
WITH twice AS (
    SELECT r."EmailId" AS id
    FROM (SELECT "Id" FROM public."Emails" ORDER BY "ReceivedAt" DESC LIMIT %s) AS newest
    JOIN public."EmailRecipients" r ON r."EmailId" = newest."Id"
    WHERE r."UserId" IS NOT NULL
    GROUP BY r."EmailId", r."UserId" HAVING count(*) > 1
)
SELECT (SELECT count(*) FROM twice), ARRAY(SELECT id::text FROM twice LIMIT %s)
"""

_OUTBOX_DEAD: Final = """
SELECT (SELECT count(*) FROM relaymail.outbox WHERE state = 'dead'),
       ARRAY(SELECT id || ': ' || coalesce(last_error, 'no reason was kept') FROM relaymail.outbox
             WHERE state = 'dead' ORDER BY id LIMIT %s)
"""

_OUTBOX_LEASES: Final = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(lease_until)), 0)::float8
FROM relaymail.outbox WHERE state = 'pending' AND lease_until < now() - make_interval(secs => %s)
"""

_OUTBOX_DUE: Final = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8
FROM relaymail.outbox WHERE state = 'pending' AND due_at < now() - make_interval(secs => %s)
  AND (lease_until IS NULL OR lease_until < now())
"""

_QUEUE_LEASES: Final = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(due_at)), 0)::float8
FROM relaymail.queue
WHERE state = 'queued' AND lease_token IS NOT NULL AND due_at < now() - make_interval(secs => %s)
"""

# A row whose destination is left alone, as its hosts could not be reached, does not wait for us
_QUEUE_DUE: Final = """
SELECT count(*), coalesce(extract(epoch FROM now() - min(q.due_at)), 0)::float8
FROM relaymail.queue q LEFT JOIN relaymail.blocked b ON b.destination = q.destination
WHERE q.state = 'queued' AND q.due_at < now() - make_interval(secs => %s)
  AND (b.blocked_until IS NULL OR b.blocked_until < now() - make_interval(secs => %s))
"""

_BLOCKED: Final = """
SELECT (SELECT count(*) FROM relaymail.blocked WHERE since < now() - make_interval(secs => %s)),
       ARRAY(SELECT destination || ': ' || reason FROM relaymail.blocked
             WHERE since < now() - make_interval(secs => %s) ORDER BY since LIMIT %s)
"""

_OWED: Final = """
SELECT count(*),
       coalesce(extract(epoch FROM now() - min(coalesce(finished_at, last_at, queued_at))), 0)::float8
FROM relaymail.queue
WHERE owed_dsn IS NOT NULL
  AND coalesce(finished_at, last_at, queued_at) < now() - make_interval(secs => %s)
"""

_SHARED_ADDRESSES: Final = """
WITH claim AS (
    SELECT lower("Email") AS address, "Id" AS "user" FROM public."Users"
    UNION
    SELECT lower("Address"), "UserId" FROM public."UserEmailAddresses" WHERE "IsVerified"
), shared AS (
    SELECT address FROM claim GROUP BY address HAVING count(*) > 1
)
SELECT (SELECT count(*) FROM shared), ARRAY(SELECT address FROM shared ORDER BY address LIMIT %s)
"""

_HAS_ADDRESS: Final = """
SELECT EXISTS (SELECT FROM public."Users" WHERE lower("Email") = lower(%s))
    OR EXISTS (SELECT FROM public."UserEmailAddresses" WHERE lower("Address") = lower(%s) AND "IsVerified")
"""


async def server(database: Database) -> ServerFacts:
    """What the server is."""
    return ServerFacts(*(await database.query("diagnosis.server", _SERVER))[0])


async def clock(database: Database) -> datetime:
    """The server's time, at this moment and not at the transaction's begin."""
    found: datetime = (await database.query("diagnosis.clock", "SELECT clock_timestamp()"))[0][0]
    return found


async def missing_privileges(database: Database) -> list[str]:
    """What the host's role may not do though it has to, in words; tables that do not exist lack nothing."""
    usage, own, absent = (await database.query("diagnosis.schemas", _SCHEMAS))[0]
    missing = [] if usage else ["USAGE on schema public"]
    if not own:
        missing.append("CREATE on the database" if absent else "USAGE and CREATE on schema relaymail")
    if usage:
        labels = [
            f"{privilege}{f' ({column})' if column else ''} on {table}"
            for table, privilege, column in _SHARED_RIGHTS
        ]
        tables, privileges, columns = (list(part) for part in zip(*_SHARED_RIGHTS, strict=True))
        rows = await database.query("diagnosis.rights", _PRIVILEGES, (labels, tables, privileges, columns))
        missing += [row[0] for row in rows]
    own_rows = await database.query("diagnosis.own_tables", _OWN_TABLES)
    return missing + [f"SELECT, INSERT, UPDATE, DELETE on relaymail.{row[0]}" for row in own_rows]


async def without_recipients(database: Database) -> Counted:
    """Messages among the newest that are for nobody; the examples are ids."""
    return await _counted(database, "diagnosis.without_recipients", _WITHOUT_RECIPIENTS, NEWEST)


async def without_bytes(database: Database) -> Counted:
    """Messages among the newest whose bytes are gone; the examples are ids."""
    return await _counted(database, "diagnosis.without_bytes", _WITHOUT_BYTES, NEWEST)


async def twice_in_a_mailbox(database: Database) -> Counted:
    """Rows of ``Emails`` among the newest that a user has more than once; the examples are ids."""
    return await _counted(database, "diagnosis.twice", _TWICE_IN_A_MAILBOX, NEWEST)


async def outbox_dead(database: Database) -> Counted:
    """Notifications that were given up; the examples are ids with the reason."""
    return await _counted(database, "diagnosis.outbox_dead", _OUTBOX_DEAD)


async def outbox_leases(database: Database, age: float) -> Waiting:
    """Notifications whose lease ended more than ``age`` seconds ago, and that nobody has claimed since."""
    return await _waiting(database, "diagnosis.outbox_leases", _OUTBOX_LEASES, age)


async def outbox_due(database: Database, age: float) -> Waiting:
    """Notifications that have been due for more than ``age`` seconds and are in nobody's hands."""
    return await _waiting(database, "diagnosis.outbox_due", _OUTBOX_DUE, age)


async def queue_leases(database: Database, age: float) -> Waiting:
    """Recipients in the queue whose lease ended more than ``age`` seconds ago."""
    return await _waiting(database, "diagnosis.queue_leases", _QUEUE_LEASES, age)


async def queue_due(database: Database, age: float) -> Waiting:
    """Recipients that have been due for more than ``age`` seconds, their destination not being left alone."""
    return await _waiting(database, "diagnosis.queue_due", _QUEUE_DUE, age, age)


async def queue_owed(database: Database, age: float) -> Waiting:
    """Reports to senders (RFC 3464) that have been owed for more than ``age`` seconds."""
    return await _waiting(database, "diagnosis.queue_owed", _OWED, age)


async def blocked(database: Database, age: float) -> Counted:
    """Destinations not reached for more than ``age`` seconds; the examples are names with the reason."""
    return await _counted(database, "diagnosis.blocked", _BLOCKED, age, age)


async def shared_addresses(database: Database) -> Counted:
    """Addresses that more than one user has."""
    return await _counted(database, "diagnosis.shared_addresses", _SHARED_ADDRESSES)


async def has_owner(database: Database, address: str) -> bool:
    """Whether a user has ``address``, as the host looks it up: in any case, verified."""
    found: bool = (await database.query("diagnosis.has_owner", _HAS_ADDRESS, (address, address)))[0][0]
    return found


async def _counted(database: Database, name: str, sql: str, *params: object) -> Counted:
    return Counted(*(await database.query(name, sql, (*params, SHOWN)))[0])


async def _waiting(database: Database, name: str, sql: str, *params: object) -> Waiting:
    return Waiting(*(await database.query(name, sql, params))[0])
