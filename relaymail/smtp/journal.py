"""What the log and the metrics hear of one session."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from relaymail.smtp.dialogue import Dialogue
from relaymail.smtp.session import Peer
from relaymail.smtp.surroundings import Observer

log = Logger()


class Journal:
    """Tells of the session of ``peer``."""

    __slots__ = ("_observer", "_peer", "_refusals")

    def __init__(self, peer: Peer, observer: Observer) -> None:
        self._peer = peer
        self._observer = observer
        self._refusals: frozenset[str] = frozenset()
        """Reasons of refusals that have been logged."""

    def refused(self, reason: str) -> None:
        """Something was refused; the log hears of a reason once, or whoever is refused could fill it."""
        self._observer.refused(reason)
        if reason not in self._refusals:
            self._refusals |= {reason}
            log.info(
                "Session {session}: refused {client}: {reason}",
                session=self._peer.session_id,
                client=self._peer.address,
                reason=reason,
            )

    def unforeseen(self, failure: Failure) -> None:
        """Something went wrong that nobody foresaw, and was answered 451."""
        self._observer.unexpected_error()
        if failure.check(CancelledError, TimeoutError):
            log.error("Session {session}: our own work took too long", session=self._peer.session_id)
        else:
            log.failure("Session {session}: unforeseen error", failure, session=self._peer.session_id)

    def ended(self, dialogue: Dialogue, end: str, seconds: float) -> None:
        """The session is over: its one line.

        :param end: one of few constant phrases.
        :param seconds: how long it was.
        """
        peer = self._peer
        tls = peer.tls
        log.info(
            "Session {session} on {listener} from {client} ended: {end}; login {login}, {messages} messages"
            " to {recipients} recipients, {bytes} bytes, {errors} errors, {tls}, {seconds:.2f} s",
            session=peer.session_id,
            listener=peer.listener,
            client=peer.address,
            end=end,
            login=peer.login or "none",
            messages=dialogue.messages,
            recipients=dialogue.recipients,
            bytes=dialogue.octets,
            errors=dialogue.errors,
            tls=f"{tls.version} {tls.cipher}" if tls else "no TLS",
            seconds=seconds,
        )
        self._observer.session_ended(peer.listener, tls.version if tls else None, end, seconds)
