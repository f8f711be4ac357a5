"""What can become of a connection to the next host that is no outcome of a recipient."""

from __future__ import annotations

from relaymail.smtp.client_mail import Outcome, Phase
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_tls import TLSProblem


class Broken(Exception):
    """The connection is of no more use; the text says why. Never leaves the client's modules."""

    def __init__(self, why: str, *, status: str = "4.4.2", reply: RemoteReply | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        """Enhanced status code, of class 4: it is the connection that failed, not the mail."""
        self.reply = reply
        """What the host said last, if that is why."""


class ConnectFailed(Exception):
    """No connection over which mail could be sent. None of it was."""

    def __init__(
        self,
        phase: Phase,
        why: str,
        *,
        status: str,
        reply: RemoteReply | None = None,
        tls_problem: TLSProblem | None = None,
    ) -> None:
        super().__init__(why if reply is None else f"{why}: {reply}")
        self.phase = phase
        self.why = why
        """For people, without the reply's text."""
        self.status = status
        """Enhanced status code; of class 4, but for :attr:`permanent`."""
        self.reply = reply
        self.tls_problem = tls_problem
        """Set where TLS is what failed."""

    @property
    def permanent(self) -> bool:
        """The host wants no mail of us at all: a 5xx to the greeting, EHLO or HELO. The next host may."""
        return self.status.startswith("5")

    @property
    def tls_failed(self) -> bool:
        """Whether TLS is what failed: worth a try in clear, unless the requirement forbids it."""
        return self.tls_problem is not None


class Interrupted(Exception):
    """Our own side failed while a message was being sent: the body or ``before_dot`` raised, which is the
    cause of this. The connection was dropped, before the end of the message where that was not yet sent."""

    def __init__(self, outcomes: list[Outcome]) -> None:
        super().__init__("the message could not be sent to its end")
        self.outcomes = outcomes
        """One for each recipient: refusals of the host stand, the others are deferred (4.3.0)."""
