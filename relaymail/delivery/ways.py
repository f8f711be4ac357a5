"""Ways to destinations, kept for a moment; and which hosts could not be reached just now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast, get_args

from relaymail.delivery.connections import Way
from relaymail.delivery.route import Relay, Router
from relaymail.delivery.tls_policy import Override, OverrideTLS
from relaymail.store.cache import TimedCache
from relaymail.store.outgoing import DestinationSettings

WAY_SECONDS: Final = 30.0
"""Seconds for which a route is taken again without asking: the names are in the resolver's cache, but asking
that for each message costs more than to send it."""
WAYS: Final = 1000
AWAY: Final = 30.0
"""Seconds for which hosts that could not be reached are not tried for other domains that have the same."""
SITES_AWAY: Final = 1000
RELAY_PORT: Final = 587

_TLS: Final = get_args(OverrideTLS)


class Ways:
    """Finds ways.

    :param settings: what operators have set for destinations.
    """

    def __init__(
        self, router: Router, *, clock: Any, settings: Callable[[], Mapping[str, DestinationSettings]]
    ) -> None:
        self._router = router
        self._settings = settings
        self._known: TimedCache[str, Way] = TimedCache(clock, lifetime=WAY_SECONDS, size=WAYS)
        self._away: TimedCache[str, str] = TimedCache(clock, lifetime=AWAY, size=SITES_AWAY)

    async def find(self, destination: str) -> Way:
        """The way to a destination. Raises :exc:`~relaymail.delivery.route.RouteFailed`."""
        way = self._known.get(destination)
        if way is None:
            override = self._override(destination)
            way = Way(await self._router.route(destination, override.relay), override)
            self._known.put(destination, way)
        return way

    def away(self, site: str) -> str | None:
        """Why the hosts of a site could not be reached, if that was just now."""
        return self._away.get(site)

    def is_away(self, site: str, reason: str) -> None:
        """They could not be reached: look for the way anew, but not at once."""
        self._away.put(site, reason)
        self._known.discard(lambda way: way.site == site)

    def _override(self, destination: str) -> Override:
        found = self._settings().get(destination)
        if found is None:
            return Override()
        relay = None if found.relay_host is None else Relay(found.relay_host, found.relay_port or RELAY_PORT)
        return Override(cast(OverrideTLS, found.tls_level) if found.tls_level in _TLS else None, relay)
