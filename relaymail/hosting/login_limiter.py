"""Slows down and locks out a client that keeps giving wrong passwords (``Security:RateLimit``).

What is counted is the client's address alone. A count per account would let anyone lock its owner out, and
one count for the whole world would lock out everyone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from relaymail.hosting.turns import Turns
from relaymail.smtp.limits import network_of
from relaymail.store.cache import Seconds

CLIENTS_KEPT = 50_000
"""Bound of the memory: some 20 MB at worst. The client that failed longest ago is forgotten first."""

_DOUBLINGS = 60
"""More would overflow a float, and any sensible maximum is reached long before."""


@dataclass(frozen=True, slots=True)
class LoginState:
    """The failed logins of a client that still count, and the seconds until it may try again."""

    client: str
    failures: int
    wait: float


class FailedLoginLimiter:
    """Says how long a client has to wait before its next login.

    A network, here, is what :func:`~relaymail.smtp.limits.network_of` makes of a client's address.

    :param max_failed_attempts: failures within the window after which the client is locked out.
    :param lockout_window: seconds a failure counts.
    :param base_backoff: seconds to wait behind the first failure; doubles with each further one.
    :param max_backoff: most seconds of that wait.
    """

    def __init__(
        self,
        clock: Seconds,
        max_failed_attempts: int,
        lockout_window: float,
        base_backoff: float,
        max_backoff: float,
    ) -> None:
        self._clock = clock
        self._maximum = max_failed_attempts
        self._window = lockout_window
        self._base = base_backoff
        self._longest = max_backoff
        self._clients: OrderedDict[str, deque[float]] = OrderedDict()
        self._turns: dict[str, Turns] = {}
        self.tell: Callable[[str, bool], None] | None = None
        """Hears of a client's failure (true), and of a success that wipes out earlier ones."""

    def __len__(self) -> int:
        return len(self._clients)

    def check(self, client: str) -> float:
        """Seconds until ``client`` (an IP address) may try to log in; 0 means now."""
        return self._wait(network_of(client))

    def _wait(self, network: str) -> float:
        times = self._recent(network)
        if not times:
            return 0.0
        now = self._clock.seconds()
        if len(times) >= self._maximum:
            return max(0.0, times[0] + self._window - now)
        pause = min(self._base * 2.0 ** min(len(times) - 1, _DOUBLINGS), self._longest)
        return max(0.0, times[-1] + pause - now)

    def failed(self, client: str) -> None:
        """Count a wrong password of ``client``."""
        network = network_of(client)
        self.count(network, 1)
        if self.tell is not None:
            self.tell(network, True)

    def count(self, network: str, failures: int) -> None:
        """Count wrong passwords that came just now, here or at another host."""
        times = self._recent(network) or deque(maxlen=max(self._maximum, 1))
        times.extend([self._clock.seconds()] * min(failures, self._maximum))
        self._clients[network] = times
        self._clients.move_to_end(network)
        if len(self._clients) > CLIENTS_KEPT:
            self._clients.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """Forget the failures of ``client``: it has shown a right password."""
        network = network_of(client)
        if self.reset(network) and self.tell is not None:
            self.tell(network, False)

    def reset(self, network: str | None) -> int:
        """Forget the failures of one client, or of all; returns how many clients had some."""
        if network is not None:
            return int(self._clients.pop(network, None) is not None)
        known = len(self._clients)
        self._clients.clear()
        return known

    def states(self, most: int) -> list[LoginState]:
        """The clients that failed last, ``most`` of them."""
        found = []
        for network in list(islice(reversed(self._clients), most)):
            wait = self._wait(network)
            times = self._clients.get(network)
            if times:
                found.append(LoginState(network, len(times), wait))
        return found

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Hold one of the tries that ``client`` may have under way at a time; waits while there is none.

        No more than may fail: fifty connections would otherwise be fifty guesses before the first has failed.
        """
        network = network_of(client)
        turns = self._turns.get(network)
        if turns is None:
            turns = self._turns[network] = Turns(max(self._maximum, 1))
        try:
            async with turns.turn():
                yield
        finally:
            if turns.unused:
                del self._turns[network]

    def _recent(self, network: str) -> deque[float] | None:
        """The failures that still count; a client without any is forgotten."""
        times = self._clients.get(network)
        if times is None:
            return None
        oldest = self._clock.seconds() - self._window
        while times and times[0] <= oldest:
            times.popleft()
        if not times:
            del self._clients[network]
            return None
        return times
