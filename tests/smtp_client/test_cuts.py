"""Whatever way the host's replies are cut into packets, the same comes of it."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relaymail.smtp.client import Outcome
from tests.smtp_client.memory import Conversation, result, started
from tests.smtp_client.sending import BODY, mail

GOOD = st.sampled_from(["250 2.0.0 fine", "250-a\r\n250 b", "251 2.1.5 elsewhere", "250"])
BAD = st.sampled_from(["550 5.1.1 no", "450 4.2.0 later", "552 too many", "421 4.3.2 bye", "354 what?", "no"])
REPLY = st.one_of(GOOD, GOOD, BAD)
DATA = st.sampled_from(["354 go", "354-go\r\n354 on", "554 5.5.1 no", "250 what?"])


def outcomes(stages: list[bytes], cuts: list[int]) -> tuple[list[Outcome], bytes, bool]:
    """What becomes of three recipients when the host says this to the envelope, then to the message."""
    talk = Conversation()
    connection = talk.open("PIPELINING", "DSN")
    sending = started(connection.send(mail("a@example.test", "b@example.test", "c@example.test"), BODY))
    for stage in stages:
        borders = [0, *sorted({cut % (len(stage) + 1) for cut in cuts}), len(stage)]
        for a, b in pairwise(borders):
            if not talk.cut:
                talk.protocol.dataReceived(stage[a:b])
    talk.transport.abortConnection()
    assert talk.cut
    return result(sending), talk.said(), connection.usable


@given(
    st.lists(REPLY, min_size=4, max_size=4),
    DATA,
    REPLY,
    st.lists(st.integers(0, 300), max_size=12),
)
def test_of_a_pipelined_transaction(envelope: list[str], data: str, end: str, cuts: list[int]) -> None:
    stages = ["".join(f"{reply}\r\n" for reply in (*envelope, data)).encode(), f"{end}\r\n".encode()]
    whole = outcomes(stages, [])
    assert outcomes(stages, cuts) == whole
    assert outcomes(stages, list(range(300))) == whole
    assert len(whole[0]) == 3
    # Nobody has it who was not accepted, and nobody of whom the end was not accepted
    for n, outcome in enumerate(whole[0]):
        if outcome.verdict == "delivered":
            assert envelope[0][0] == envelope[n + 1][0] == end[0] == "2"
            assert data.startswith("354")
        assert outcome.status[0] == {"delivered": "2", "deferred": "4", "failed": "5"}[outcome.verdict]
