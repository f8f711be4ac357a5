"""From libpq parameters to a session fit for mail: hosts, the session's settings, checks of the server."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from relaymail.store.connection import Connection
from relaymail.store.errors import DatabaseError, DatabaseUnavailable

OLDEST_SERVER = 140000
"""``server_version_num`` of PostgreSQL 14."""

FIRST_WAIT = 0.1
"""Seconds before the first new attempt to connect; doubled each time, with up to half of it as jitter."""
LONGEST_WAIT = 5.0

_DEFAULTS = {
    "application_name": "relaymail",
    "client_encoding": "UTF8",
    # Kerberos would look for its tickets with blocking calls
    "gssencmode": "disable",
    "target_session_attrs": "read-write",
    "keepalives": "1",
    "keepalives_idle": "20",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

_SETUP = """
SELECT set_config('synchronous_commit', 'on', false),
       set_config('timezone', 'UTC', false),
       set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       CASE WHEN current_setting('server_version_num')::int >= 140000 AND version() LIKE '%%linux%%'
            THEN set_config('client_connection_check_interval', '2s', false) END,
       -- A twentieth of what PostgreSQL does for a message is pglz on its text, where nobody said otherwise
       (SELECT set_config(name, 'lz4', false) FROM pg_settings
        WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)),
       current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('server_version_num')::int
"""


class ServerRefused(DatabaseUnavailable):
    """The server was reached and must not be used for mail."""


class Dialer:
    """Opens connections to the first of the given hosts that takes writes.

    :param parameters: libpq keywords; ``host``, ``hostaddr`` and ``port`` may be lists joined by commas.
    :param connect_timeout: seconds for each address, from its first packet to a usable session, and for
        resolving each name.
    :param statement_timeout: seconds after which the server itself ends a statement.
    """

    def __init__(
        self, parameters: Mapping[str, str], reactor: Any, connect_timeout: float, statement_timeout: float
    ) -> None:
        self._parameters = {**_DEFAULTS, **{k: str(v) for k, v in parameters.items()}}
        self._parameters.pop("connect_timeout", None)  # libpq does not keep it on asynchronous connections
        self._reactor = reactor
        self._timeout = connect_timeout
        milliseconds = int(statement_timeout * 1000)
        self._settings = (str(milliseconds), str(2 * milliseconds))
        self._last_good: dict[str, str] = {}

    async def dial(
        self,
        on_lost: Callable[[Connection, DatabaseError], None],
        on_notify: Callable[[str, str], None] | None = None,
    ) -> Connection:
        """An open connection with its session set up.

        :raises ServerRefused: the server would lose mail, or is too old.
        :raises DatabaseError: no host could be reached, or the server does not want us; the reason of the
            last host tried.
        """
        failure: DatabaseError = DatabaseUnavailable(
            f"no address is found for the name {self._parameters.get('host')}"
        )
        for target in await self._targets():
            try:
                connection = await self._open(target, on_lost, on_notify)
            except DatabaseError as error:
                failure = error
            else:
                self._last_good = target
                return connection
        raise failure

    async def _open(
        self,
        target: Mapping[str, str],
        on_lost: Callable[[Connection, DatabaseError], None],
        on_notify: Callable[[str, str], None] | None,
    ) -> Connection:
        usable = False

        def lost(connection: Connection, error: DatabaseError) -> None:
            if usable:
                on_lost(connection, error)

        connection = Connection(self._reactor, lost, on_notify)
        await connection.open({**self._parameters, **target}, self._timeout)
        try:
            connection.set_deadline(self._reactor.seconds() + self._timeout)
            answer = await connection.run(_SETUP, self._settings)
            connection.clear_deadline()
            _check(*answer.rows[0][-3:])
        except BaseException:
            connection.close()
            raise
        usable = True
        return connection

    async def _targets(self) -> list[dict[str, str]]:
        """What to add to the parameters for each address to try, the one that worked last first."""
        hosts = self._parameters.get("host", "").split(",")
        addresses = self._parameters.get("hostaddr", "").split(",")
        ports = self._parameters.get("port", "").split(",")
        if not any(hosts) and not any(addresses):
            return [{}]
        targets = []
        for i in range(max(len(hosts), len(addresses))):
            host = hosts[i] if i < len(hosts) else ""
            port = ports[i] if i < len(ports) else ports[0]
            given = addresses[i] if i < len(addresses) else ""
            for address in [given] if given else await self._resolve(host):
                target = {"host": host, "hostaddr": address, "port": port}
                targets.append({k: v for k, v in target.items() if v})
        targets.sort(key=lambda target: target != self._last_good)
        return targets

    async def _resolve(self, host: str) -> list[str]:
        """Addresses of ``host``, by a thread: libpq would block the reactor. None found: no attempt."""
        if host == "" or host.startswith(("/", "@")):
            return [""]
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        looked_up: Deferred[list[str]] = Deferred(lambda _: timer.cancel())
        timer = self._reactor.callLater(self._timeout, looked_up.callback, [])

        def finish(found: Any) -> None:
            if not looked_up.called:
                timer.cancel()
                looked_up.callback(found if isinstance(found, list) else [])

        deferToThreadPool(self._reactor, self._reactor.getThreadPool(), _addresses, host).addBoth(finish)
        return await looked_up


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _check(fsync: str, full_page_writes: str, version: int) -> None:
    """Refuse a server that can lose what it has acknowledged.

    :raises ServerRefused: with a sentence for the operator.
    """
    for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)):
        if value != "on":
            raise ServerRefused(
                f"PostgreSQL runs with {name} = {value}: a crash of its machine would lose or damage mail "
                f"that was already acknowledged. Set {name} = on in postgresql.conf and reload."
            )
    if version < OLDEST_SERVER:
        raise ServerRefused(f"PostgreSQL {version // 10000} is too old: 14 or newer is needed.")
