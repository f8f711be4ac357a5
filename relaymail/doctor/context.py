"""What checks look at: settings, database, DNS, listeners; each made once, when first asked for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, gatherResults

from relaymail.delivery.policy_fetch import PolicyFetcher
from relaymail.dns import DNSError, DNSFailure, Resolver
from relaymail.doctor.aside import aside
from relaymail.doctor.check import Skipped
from relaymail.doctor.data_source import DataSource, NoDatabase, NotMadeYet, NotNamed, open_database
from relaymail.doctor.listeners import Listener, Seen, asked_for, look_at
from relaymail.doctor.shared import Shared
from relaymail.settings import Examined, Secret, Settings, own_name, why_off
from relaymail.store.database import Database, DatabaseError
from relaymail.store.dialing import ServerRefused

T = TypeVar("T")

LOOKUPS = 20
"""DNS queries at a time."""
LOOKUP_LIMIT = 6.0
"""Seconds for one."""
POLICY_LIMIT = 10.0
"""Seconds for a policy of MTA-STS."""
DOMAINS = 25
"""Hosted domains looked at by one check."""

_MISSING = frozenset({"42P01", "3F000", "42703", "42883"})
"""undefined_table, invalid_schema_name, undefined_column, undefined_function"""
_DENIED = "42501"


def reserved(name: str) -> bool:
    """Whether a name is one that DNS never has (RFC 6761 6)."""
    return name.rpartition(".")[2] in {"test", "invalid", "localhost", "example"}


class Context:
    """The host to be looked at.

    :param examined: its settings, right or wrong.
    :param demo: whether they are a demo's.
    :param now: the time of this machine, in seconds since 1970.
    :param policies: fetches the policies of MTA-STS; by default from port 443 and with the system's trust.
    """

    def __init__(
        self,
        examined: Examined,
        *,
        reactor: Any,
        demo: bool = False,
        now: Callable[[], float] = time.time,
        policies: PolicyFetcher | None = None,
    ) -> None:
        self.examined = examined
        self.settings: Settings = examined.loaded.settings
        self.demo = demo
        self.reactor = reactor
        self.now = now
        dns = self.settings.dns
        self.resolver = Resolver(
            [str(server) for server in dns.servers or ()],
            reactor=reactor,
            timeout=LOOKUP_LIMIT,
            trusted=dns.trusted_validator,
        )
        self.policies = policies or PolicyFetcher(self.resolver, reactor=reactor, limit=POLICY_LIMIT)
        self._lookups = DeferredSemaphore(LOOKUPS)
        self._database: Shared[DataSource] = Shared(lambda: open_database(self.settings, reactor))
        self._listeners: Shared[list[Seen]] = Shared(self._look_at_listeners)
        self._named: dict[str, Shared[Any]] = {}

    # Work

    def aside(self, function: Callable[..., T], *arguments: object) -> Deferred[T]:
        """What a function that blocks returns, run in a thread."""
        return aside(self.reactor, function, *arguments)

    async def each(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """The results of all of ``work``, done at the same time."""
        running = [Deferred.fromCoroutine(one) for one in work]
        try:
            results: list[T] = await gatherResults(running, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
            raise
        return results

    async def once(self, name: str, make: Callable[[], Awaitable[T]]) -> T:
        """What ``make`` returns, which runs once for all who ask under this name."""
        shared: Shared[T] = self._named.setdefault(name, Shared(make))
        return await shared.get()

    async def close(self) -> None:
        """Let go of everything; an embedded PostgreSQL that was started for this is stopped."""
        for shared in (*self._named.values(), self._listeners, self._database):
            await shared.end()
        try:
            source = await self._database.get() if self._database.begun else None
        except (DatabaseError, NoDatabase):
            return
        if source is not None:
            await source.close()

    # Settings

    @property
    def development(self) -> bool:
        """Whether the host makes itself a self-signed certificate."""
        return self.demo or self.settings.data.embedded_postgres

    @property
    def has_certificate(self) -> bool:
        """Whether the host has a certificate, or makes one."""
        return self.settings.smtp.certificate_path is not None or self.development

    @property
    def domains(self) -> tuple[str, ...]:
        """The hosted domains, the first :data:`DOMAINS` of them.

        :raises Skipped: there are none.
        """
        mx = self.settings.smtp.mx
        if not (self.settings.smtp.enabled and mx.enabled and mx.hosted_domains):
            raise Skipped("no domains are hosted: Smtp:Mx:Enabled is false, or Smtp:Mx:HostedDomains empty")
        return mx.hosted_domains[:DOMAINS]

    @property
    def public_domains(self) -> tuple[str, ...]:
        """Those of :attr:`domains` that the DNS of all can know.

        :raises Skipped: there are none.
        """
        found = tuple(domain for domain in self.domains if not reserved(domain))
        if not found:
            raise Skipped(f"{', '.join(self.domains)}: reserved for tests (RFC 6761), DNS knows no such name")
        return found

    @property
    def outbound(self) -> bool:
        """Whether the host sends mail to other hosts: switched on, and with a name to say."""
        return why_off(self.settings) is None

    @property
    def name(self) -> str:
        """The name said to other hosts."""
        return own_name(self.settings)

    @property
    def secrets(self) -> list[str]:
        """Every secret in the settings, so that none is shown."""
        settings = self.settings
        held: list[Secret | None] = [
            settings.smtp.certificate_password,
            settings.internal.api_key,
            settings.outbound_mail.relay_password,
            settings.security.authentication_salt,
        ]
        found = [secret.reveal() for secret in held if secret is not None]
        if settings.connection is not None:
            parameters = settings.connection.parameters()
            found += [parameters[name] for name in ("password", "sslpassword") if name in parameters]
        for section in ("Smtp", "Email:Smtp", "Notify:Email"):
            given = self.examined.given(f"{section}:Password")
            found += [given.text] if given is not None else []
        return found

    # What is looked at

    async def source(self) -> DataSource:
        """The database, and how it was reached.

        :raises NoDatabase: there is none to be had, without a try.
        :raises DatabaseError: it could not be reached.
        """
        return await self._database.get()

    async def ask(self, work: Callable[[Database], Awaitable[T]]) -> T:
        """What ``work`` finds in the database.

        :raises Skipped: it cannot be asked; another check says why.
        """
        try:
            source = await self.source()
        except (NotMadeYet, NotNamed) as why:
            raise Skipped(str(why)) from None
        except ServerRefused:
            raise Skipped("the server must not be used, see check.database.version") from None
        except (DatabaseError, NoDatabase):
            raise Skipped("the database cannot be reached, see check.database.reachable") from None
        try:
            return await work(source.database)
        except DatabaseError as error:
            if error.sqlstate in _MISSING:
                raise Skipped("the database lacks tables, see check.database.migrations") from None
            if error.sqlstate == _DENIED:
                raise Skipped("the database does not allow it, see check.database.permissions") from None
            raise Skipped(f"the database gave no answer: {error}") from None

    async def listeners(self) -> list[Seen]:
        """What each port of the host shows to who connects."""
        return await self._listeners.get()

    async def _look_at_listeners(self) -> list[Seen]:
        async def look(listener: Listener) -> Seen:
            return await self.aside(look_at, listener)

        wanted = asked_for(self.settings, has_certificate=self.has_certificate)
        return await self.each(look(listener) for listener in wanted)

    async def running(self) -> bool:
        """Whether the host runs: something of ours answers at one of its ports."""
        return any(seen.ours for seen in await self.listeners())

    # DNS

    async def lookup(self, name: str, rdtype: str) -> list[Any]:
        """The records of a name, none where there are none.

        :raises DNSFailure: DNS did not say.
        """
        await self._lookups.acquire()
        try:
            return list((await self.resolver.lookup(name, rdtype, limit=LOOKUP_LIMIT)).records)
        except DNSFailure:
            raise
        except DNSError:
            return []
        finally:
            self._lookups.release()

    async def addresses(self, name: str) -> list[str]:
        """The addresses of a name, IPv4 first. Raises as :meth:`lookup` does."""
        found = await self.each(self.lookup(name, kind) for kind in ("A", "AAAA"))
        return [record.address for records in found for record in records]

    async def texts(self, name: str, begin: str) -> list[str]:
        """The TXT records of a name that begin with ``begin`` in any case, each in one piece.

        Raises as :meth:`lookup` does.
        """
        records = await self.lookup(name, "TXT")
        texts = [b"".join(record.strings).decode("utf-8", "replace") for record in records]
        return [text for text in texts if text.lower().startswith(begin.lower())]
