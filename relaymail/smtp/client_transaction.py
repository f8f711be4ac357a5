"""One mail transaction with the next host (RFC 5321 3.3), pipelined where the host can (RFC 2920)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from relaymail.smtp import client_outcome
from relaymail.smtp.client_envelope import Plan
from relaymail.smtp.client_errors import Broken
from relaymail.smtp.client_mail import Outcome, Phase
from relaymail.smtp.client_reply import RemoteReply
from relaymail.smtp.client_timeouts import ClientTimeouts
from relaymail.smtp.client_transfer import Body, NotOurs, send_chunks, send_data
from relaymail.smtp.client_wire import Wire

BeforeDot = Callable[[Sequence[int]], Awaitable[bool]]
"""Awaited when all but the end of the message is on its way, with the indices of the recipients that were
accepted: whether the message may be ended. If not, the connection is dropped and the host throws away what
it has."""


_DATA: Final = b"DATA\r\n"


class Transaction:
    """Sends one message.

    :param plan: what to say; with a recipient at least.
    :param reset: begin with RSET, for the host still has a transaction open.
    """

    def __init__(
        self, wire: Wire, plan: Plan, timeouts: ClientTimeouts, *, pipelining: bool, reset: bool
    ) -> None:
        self._wire = wire
        self._plan = plan
        self._timeouts = timeouts
        self._pipelining = pipelining
        self._reset = reset
        self._phase: Phase = "mail"
        self._outcomes: dict[int, Outcome] = dict(plan.refusals)
        self.left_open = False
        """Whether the host may still have a transaction open behind it."""

    async def run(self, body: Body, before_dot: BeforeDot | None) -> None:
        """Do it. Whatever the host does ends in :meth:`outcomes`; what ``body`` and ``before_dot`` raise is
        passed on."""
        try:
            accepted = await self._envelope()
            if accepted:
                await self._message(accepted, body, before_dot)
        except Broken as broken:
            self._settle(client_outcome.of_break(broken, self._phase))
            self._wire.abort()
        except NotOurs:
            self._settle(
                Outcome("deferred", "4.3.0", None, "before-dot", "the message was taken back before its end")
            )

    def outcomes(self, otherwise: Outcome) -> list[Outcome]:
        """What has become of each recipient, ``otherwise`` where nobody knows."""
        count = len(self._plan.recipients) + len(self._plan.refusals)
        return [self._outcomes.get(n, otherwise) for n in range(count)]

    async def _envelope(self) -> list[int]:
        """MAIL, RCPT and, unless it goes in chunks, DATA. The recipients for whom the host waits for the
        message now."""
        plan, timeouts = self._plan, self._timeouts
        if self._pipelining:
            commands = [b"RSET\r\n"] if self._reset else []
            commands += [plan.mail, *plan.recipients.values()]
            if not plan.chunks:
                commands.append(_DATA)
            self._wire.command(b"".join(commands), len(commands))
        if self._reset:
            reply = await self._ask("rset", b"RSET\r\n", timeouts.mail)
            if reply.code // 100 != 2:
                raise Broken("the host refused to begin a new message", status="4.5.0", reply=reply)
        reply = await self._ask("mail", plan.mail, timeouts.mail)
        wanted = self.left_open = reply.code // 100 == 2
        if not wanted:
            self._settle(client_outcome.of_refusal(reply, "mail"))
            if not self._pipelining:
                return []
        accepted = await self._recipients()
        if plan.chunks:
            return accepted if wanted else []
        if not self._pipelining and not accepted:
            return []
        return await self._data(accepted, wanted)

    async def _recipients(self) -> list[int]:
        """RCPT. Those that were accepted."""
        accepted: list[int] = []
        for n, command in self._plan.recipients.items():
            reply = await self._ask("rcpt", command, self._timeouts.rcpt)
            if reply.code // 100 == 2:
                accepted.append(n)
            elif n not in self._outcomes:
                refusal = client_outcome.of_refusal(reply, "rcpt", among_accepted=bool(accepted))
                self._outcomes[n] = refusal
        return accepted

    async def _data(self, accepted: list[int], wanted: bool) -> list[int]:
        """DATA. The recipients for whom the host waits for the message now.

        :param wanted: MAIL was accepted.
        """
        reply = await self._ask("data", _DATA, self._timeouts.data, go_ahead=3)
        if reply.code // 100 != 3:
            self._settle(client_outcome.of_refusal(reply, "data"))
            return []
        if wanted and accepted:
            return accepted
        if accepted:
            # It refused the sender, and takes recipients and a message from nobody
            raise Broken("the host wants a message of which it refused the sender", status="4.5.0")
        # Said in one go with the recipients, which were all refused: an empty message ends it (RFC 2920 3.1)
        self._wire.command(b".\r\n")
        await self._wire.reply(self._timeouts.final_dot)
        self.left_open = False
        return []

    async def _message(self, accepted: list[int], body: Body, before_dot: BeforeDot | None) -> None:
        """The message itself, and what the host says to it."""
        self._phase = "transfer"
        may_end = None if before_dot is None else (lambda: before_dot(accepted))
        send = send_chunks if self._plan.chunks else send_data
        reply = await send(self._wire, body, may_end, self._timeouts)
        if reply is None:
            self._phase = "final-dot"
            reply = await self._wire.reply(self._timeouts.final_dot)
            # The transaction is over, whatever was said (RFC 5321 4.1.1.4); of chunks it is not (RFC 3030 2)
            self.left_open = self._plan.chunks and reply.code // 100 != 2
        _check_class(reply, 2)
        if reply.code // 100 == 2:
            self._settle(client_outcome.of_acceptance(reply, dsn=self._plan.dsn))
        else:
            self._settle(client_outcome.of_refusal(reply, self._phase))

    async def _ask(self, phase: Phase, command: bytes, seconds: float, go_ahead: int = 2) -> RemoteReply:
        """A command, if it was not yet sent, and the reply to it: 4xx, 5xx or of class ``go_ahead``."""
        self._phase = phase
        if not self._pipelining:
            self._wire.command(command)
        reply = await self._wire.reply(seconds)
        _check_class(reply, go_ahead)
        return reply

    def _settle(self, outcome: Outcome) -> None:
        """What becomes of those of whom it is not yet known."""
        for n in self._plan.recipients:
            self._outcomes.setdefault(n, outcome)


def _check_class(reply: RemoteReply, go_ahead: int) -> None:
    """:raises Broken: the reply is none to what was said."""
    if reply.code // 100 not in (go_ahead, 4, 5):
        raise Broken("the host's reply makes no sense here", status="4.5.0", reply=reply)
