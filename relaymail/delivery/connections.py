"""Connections to next hosts: opened by the route, one host after the other, and kept a moment for the next
message."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.logger import Logger

from relaymail.delivery.observer import Observer
from relaymail.delivery.route import NextHost, Route
from relaymail.delivery.tls_policy import HostPolicy, HostRefused, Override, TLSPolicies
from relaymail.delivery.verdicts import Place
from relaymail.smtp.client import ClientConnection, ConnectFailed
from relaymail.smtp.client_mail import Outcome, Verdict
from relaymail.smtp.client_tls import TLSMode, TLSRequirement

log = Logger()

MESSAGES: Final = 100
"""Messages of one connection."""
NO_MAIL: Final = 521
"""The reply of a host that never takes mail, in place of a greeting (RFC 7504 3)."""
IDLE: Final = 5.0
"""Seconds for which a connection without a message is kept: long enough for what is already in the queue, and
not so long that a host which counts connections minds."""

Connect = Callable[[NextHost, str, HostPolicy, TLSRequirement], Awaitable[ClientConnection]]
"""Connects to a host at one of its addresses, with the requirement of its policy or of a second try. Raises
``ConnectFailed``."""

_Key = tuple[str, int, TLSRequirement]


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to a destination, worked out once for several messages."""

    route: Route
    override: Override
    require_tls: bool = False
    """Only for messages under REQUIRETLS (RFC 8689)."""
    policies: dict[str, HostPolicy] = field(default_factory=dict, init=False)
    """What was found out about the TLS of the hosts so far, by name."""

    @property
    def site(self) -> str:
        """The set of hosts, whatever domain and order: what connections are counted by."""
        return " ".join(sorted(f"{host.name}:{host.port}" for host in self.route.hosts))


@dataclass(slots=True)
class Link:
    """A connection on loan."""

    connection: ClientConnection
    host: NextHost
    key: _Key
    timer: Any = None
    place: Place = field(init=False)

    def __post_init__(self) -> None:
        tls = self.connection.tls
        shown = None if tls is None else f"{tls.version} {tls.cipher} ({tls.verified_by})"
        self.place = Place(self.host.name, self.connection.address, shown)

    @property
    def reusable(self) -> bool:
        """Whether another message may go over it."""
        return self.connection.usable and self.connection.transactions < MESSAGES


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a host was of no use."""

    outcome: Outcome
    place: Place


class NoConnection(Exception):
    """All hosts of a route have been tried."""

    def __init__(self, obstacles: Sequence[Obstacle]) -> None:
        super().__init__("; ".join(obstacle.outcome.why for obstacle in obstacles))
        self.obstacles = obstacles

    @property
    def worst(self) -> Obstacle:
        """What is told of it: the last thing a host said; temporary, unless no host leaves any hope."""
        hopeful = [obstacle for obstacle in self.obstacles if obstacle.outcome.verdict == "deferred"]
        told = hopeful or self.obstacles
        said = [obstacle for obstacle in told if obstacle.outcome.reply is not None]
        return (said or told)[-1]


class Connections:
    """Opens connections and keeps those that nobody needs at the moment.

    :param own_names: names of this host (lower case): whoever greets with one is this host, and sending there
        would go on for ever (RFC 5321 6.3).
    :param idle: seconds.
    """

    def __init__(
        self,
        connect: Connect,
        policies: TLSPolicies,
        *,
        reactor: Any,
        observer: Observer,
        own_names: Collection[str] = (),
        idle: float = IDLE,
    ) -> None:
        self._connect = connect
        self._policies = policies
        self._reactor = reactor
        self._observer = observer
        self._own_names = own_names
        self._idle_seconds = idle
        self._idle: dict[_Key, list[Link]] = {}

    def search(self, way: Way) -> AsyncGenerator[Link, None]:
        """Connections to the hosts of a route, the best first: ask for the next one when one was of no use.

        Close it in the end. Raises :exc:`NoConnection` behind the last one, and ``DatabaseError`` where the
        policies cannot be read.
        """
        return self._search(way)

    def give_back(self, link: Link) -> None:
        """Nobody needs the connection any more: keep it for a moment, if it is still good."""
        if not link.reusable:
            link.connection.quit()
            return
        self._idle.setdefault(link.key, []).append(link)
        link.timer = self._reactor.callLater(self._idle_seconds, self._expire, link)

    def close(self) -> None:
        """End the connections that nobody uses."""
        for links in list(self._idle.values()):
            for link in list(links):
                link.timer.cancel()
                self._expire(link)

    async def _search(self, way: Way) -> AsyncGenerator[Link, None]:
        obstacles: list[Obstacle] = []
        for host in way.route.hosts:
            try:
                policy = way.policies.get(host.name) or await self._policy(way, host)
            except HostRefused as refused:
                obstacles.append(_refused(host, refused))
                continue
            key = (host.name, host.port, policy.requirement)
            while (kept := self._take(key)) is not None:
                yield kept
            for address in host.addresses:
                try:
                    connection = await self._open(host, address, policy)
                except ConnectFailed as failed:
                    obstacles.append(_failed(way.route, host, address, failed))
                    if failed.permanent:
                        break  # it is the host that wants nothing, not the address
                    continue
                if self._is_ourselves(way, connection):
                    connection.quit()
                    obstacles.append(_ourselves(host, address))
                    break
                yield Link(connection, host, key)
                obstacles.append(_lost(host, address))
        raise NoConnection(obstacles)

    async def _policy(self, way: Way, host: NextHost) -> HostPolicy:
        policy = await self._policies.for_host(
            way.route, host, require_tls=way.require_tls, override=way.override
        )
        way.policies[host.name] = policy
        return policy

    async def _open(self, host: NextHost, address: str, policy: HostPolicy) -> ClientConnection:
        """Connect; where TLS fails and is not asked for, once more in clear (RFC 7435)."""
        requirement = policy.requirement
        try:
            connection = await self._connect(host, address, policy, requirement)
        except ConnectFailed as failed:
            if not failed.tls_failed or requirement.forbids_clear or requirement.mode is TLSMode.NONE:
                raise
            log.info("TLS with {host} failed, trying in clear: {why}", host=host.name, why=failed.why)
            connection = await self._connect(host, address, policy, TLSRequirement.none())
        self._observer.delivery_connected(connection.tls.version if connection.tls else None)
        return connection

    def _is_ourselves(self, way: Way, connection: ClientConnection) -> bool:
        return way.route.kind != "relay" and connection.capabilities.name in self._own_names

    def _take(self, key: _Key) -> Link | None:
        """A connection that is kept, if it is still alive."""
        while links := self._idle.get(key):
            link = links.pop()
            if not links:
                del self._idle[key]
            link.timer.cancel()
            if link.reusable:
                return link
            link.connection.quit()
        return None

    def _expire(self, link: Link) -> None:
        links = self._idle[link.key]
        links.remove(link)
        if not links:
            del self._idle[link.key]
        link.connection.quit()


def _refused(host: NextHost, refused: HostRefused) -> Obstacle:
    verdict: Verdict = "failed" if refused.permanent else "deferred"
    # Without the code: a sender would read it as the host's reply, who said nothing
    return Obstacle(Outcome(verdict, refused.status, None, "local", refused.why), Place(host.name))


def _failed(route: Route, host: NextHost, address: str, failed: ConnectFailed) -> Obstacle:
    """A host that turns us away at the door has not seen the mail: what it dislikes is this host (a block
    list, our name), which is a matter of hours. So its 5xx only fails mail where it says that it takes none
    from anybody; a relay's never does."""
    never = failed.reply is not None and failed.reply.code == NO_MAIL and route.kind != "relay"
    verdict: Verdict = "failed" if failed.permanent and never else "deferred"
    status = failed.status if verdict == "failed" else f"4{failed.status[1:]}"
    return Obstacle(
        Outcome(verdict, status, failed.reply, failed.phase, failed.why), Place(host.name, address)
    )


def _ourselves(host: NextHost, address: str) -> Obstacle:
    why = f"{host.name} is this host itself: the mail would loop"
    return Obstacle(Outcome("failed", "5.4.6", None, "greeting", why), Place(host.name, address))


def _lost(host: NextHost, address: str) -> Obstacle:
    """The caller asks for another one: what was wrong it knows itself, and tells where there is none left."""
    outcome = Outcome("deferred", "4.4.2", None, "mail", f"the connection to {host.name} was of no use")
    return Obstacle(outcome, Place(host.name, address))
