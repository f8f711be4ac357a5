"""Our own health probes, so that they are not logged or counted as sessions."""

from __future__ import annotations


class ProbeRegistry:
    """Client addresses of probes under way: the health check adds its own, the engine takes it when the
    session ends."""

    def __init__(self) -> None:
        self._probes: set[tuple[str, int]] = set()

    def add(self, client: tuple[str, int]) -> None:
        """Announce a probe by its local host and port."""
        self._probes.add(client)

    def discard(self, client: tuple[str, int]) -> None:
        """Forget a probe that never reached a listener."""
        self._probes.discard(client)

    def take(self, client: tuple[str, int]) -> bool:
        """Whether this client was a probe; forgets it."""
        if client in self._probes:
            self._probes.remove(client)
            return True
        return False
