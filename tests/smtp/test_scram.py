"""SCRAM-SHA-256: its messages, and the exchange in a session (RFC 5802, 7677, 4954)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from relaymail.smtp import reply, scram
from relaymail.smtp.authentication import Authentication
from relaymail.smtp.policy import Policy
from relaymail.smtp.reply import Reply, ReplyError
from relaymail.smtp.saslprep import saslprep
from relaymail.smtp.scram import TLS_EXPORTER, TLS_SERVER_END_POINT, ClientFirst, Salting, ScramError
from relaymail.smtp.scram_exchange import SCRAM, SCRAM_PLUS
from relaymail.smtp.session import Peer, TLSFacts
from relaymail.store.scram import UserSalt, derive
from tests.smtp.memory import Conversation, RecordingSession
from tests.support.scram import ScramClient

SUBMISSION = Policy(
    "submission",
    "mail.example.test",
    authentication=True,
    authentication_required=True,
    mechanisms=("PLAIN", "LOGIN", SCRAM, SCRAM_PLUS),
)
TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384")
SALTING = Salting(b"salt", 2)
KEY, OTHER_KEY, WRONG = "key", "other key", "wrong"
LOGIN = "user@example.test"

logins = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
keys = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80)
bindings = st.one_of(st.just(("n", b"")), st.just(("y", b"")), st.tuples(st.just("p=x-y"), st.binary()))


def verifier(key: str, salting: Salting = SALTING) -> tuple[bytes, bytes]:
    return derive(key, UserSalt(salting.salt, salting.iterations))


# Messages


def test_the_example_of_rfc_7677() -> None:
    first = scram.client_first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first == ClientFirst(
        "n,,", False, None, "user", "rOprNGfwEbeRWgbNEkqO", "n=user,r=rOprNGfwEbeRWgbNEkqO"
    )
    salting = Salting(base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    answer = scram.server_first(first, salting, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert answer == (
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    proof = scram.client_final(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        first,
        answer,
        b"",
    )
    stored_key, server_key = verifier("pencil", salting)
    assert proof.fits(stored_key)
    assert not proof.fits(verifier("pencils", salting)[0])
    assert proof.server_final(server_key) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@given(logins, keys, keys, bindings, st.binary(min_size=1, max_size=32), st.integers(1, 3))
def test_a_proof_fits_its_own_key_and_no_other(
    login: str, key: str, other: str, bound: tuple[str, bytes], salt: bytes, iterations: int
) -> None:
    flag, binding = bound
    salting = Salting(salt, iterations)
    client = ScramClient(login, key, flag=flag, binding=binding)
    first = scram.client_first(client.first())
    assert first.login == login
    assert (first.binding, first.supports_binding) == (flag[2:] if flag[:2] == "p=" else None, flag == "y")
    answer = scram.server_first(first, salting, "nonce")
    proof = scram.client_final(client.final(answer.encode()), first, answer, binding)
    stored_key, server_key = verifier(key, salting)
    assert proof.fits(stored_key)
    # HMAC fills short keys with NUL, which is none of the characters here
    assert proof.fits(verifier(other, salting)[0]) == (key == other)
    assert client.trusts(proof.server_final(server_key))


@given(st.data())
def test_a_final_message_that_was_tampered_with_proves_nothing(data: st.DataObject) -> None:
    client = ScramClient(LOGIN, KEY)
    first = scram.client_first(client.first())
    answer = scram.server_first(first, SALTING, "nonce")
    final = client.final(answer.encode())
    place = data.draw(st.integers(0, len(final) - 1))
    octet = data.draw(st.integers(0, 255).filter(lambda octet: octet != final[place]))
    changed = final[:place] + bytes([octet]) + final[place + 1 :]
    try:
        proof = scram.client_final(changed, first, answer, b"")
    except ScramError:
        return
    # The last character of base64 has bits that mean nothing
    same = base64.b64decode(changed.rpartition(b"p=")[2]) == base64.b64decode(final.rpartition(b"p=")[2])
    assert proof.fits(verifier(KEY)[0]) == (same and changed[:-44] == final[:-44])


@given(st.one_of(st.binary(), st.text(st.sampled_from("nyp=,amr:cCiI2D3xé\0 ")).map(str.encode)))
def test_anything_else_is_a_failed_exchange(message: bytes) -> None:
    first = ClientFirst("n,,", False, None, "user", "x", "n=user,r=x")
    for read in (scram.client_first, lambda m: scram.client_final(m, first, "r=xy,s=AAAA,i=1", b"")):
        with suppress(ScramError):
            read(message)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", "other-error"),
        (b"n,n=user,r=x", "other-error"),
        (b"z,,n=user,r=x", "other-error"),
        (b"p=,,n=user,r=x", "other-error"),
        (b"n,,n=,r=x", "other-error"),
        (b"n,,n=user,r=", "other-error"),
        (b"n,,n=user,r=x y", "other-error"),
        (b"n,,r=x,n=user", "other-error"),
        (b"n,,m=1,n=user,r=x", "extensions-not-supported"),
        (b"n,,n=us=er,r=x", "invalid-username-encoding"),
        (b"n,,n=us=2cer,r=x", "invalid-username-encoding"),
        (b"n,,n=us\x07er,r=x", "invalid-username-encoding"),
        (b"n,,n=\xc2\xad,r=x", "invalid-username-encoding"),
        (b"n,,n=\xff,r=x", "invalid-encoding"),
        (b"n,a=other,n=user,r=x", "other-error"),
    ],
)
def test_a_first_message_is_refused_for_what_is_wrong_with_it(message: bytes, error: str) -> None:
    with pytest.raises(ScramError, match=f"^{error}$"):
        scram.client_first(message)


def test_a_first_message_may_name_the_login_twice_and_hold_extensions() -> None:
    first = scram.client_first(b"n,a=A=2CB=3D,n=a=2Cb=3D,r=x,e=anything,X=more")
    assert (first.login, first.header) == ("a,b=", "n,a=A=2CB=3D,")
    assert first.bare == "n=a=2Cb=3D,r=x,e=anything,X=more"


def test_an_authorization_identity_may_be_empty() -> None:
    assert scram.client_first(b"n,a=,n=user,r=x").header == "n,a=,"


@pytest.mark.parametrize(
    ("final", "error"),
    [
        (b"c=biws,r=xy", "other-error"),
        (b"c=biws,r=x,p=" + b"A" * 43 + b"=", "other-error"),
        (b"c=biws,r=xyz,p=" + b"A" * 43 + b"=", "other-error"),
        (b"c=eSws,r=xy,p=" + b"A" * 43 + b"=", "channel-bindings-dont-match"),
        (b"c=bi=s,r=xy,p=" + b"A" * 43 + b"=", "other-error"),
        (b"c=biws,r=xy,p=AAAA", "invalid-proof"),
        (b"c=biws,r=xy,p=A", "other-error"),
    ],
)
def test_a_final_message_is_refused_for_what_is_wrong_with_it(final: bytes, error: str) -> None:
    first = scram.client_first(b"n,,n=user,r=x")
    with pytest.raises(ScramError, match=f"^{error}$"):
        scram.client_final(final, first, scram.server_first(first, SALTING, "y"), b"")


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        *[("I\u00adX", "IX"), ("user", "user"), ("USER", "USER"), ("\u00aa", "a"), ("\u2168", "IX")],
        *[("a\u00a0b", "a b"), ("gru\u0308\u00dfe", "grüße"), ("\u06271\u0628", "\u06271\u0628")],
        *[("\U0001f600", "\U0001f600"), ("", "")],
    ],
)
def test_names_are_prepared_as_rfc_4013_says(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "a\0", "\ue000", "\ufffd", "\u06271", "\u0627a\u0628", "\u200e"])
def test_names_with_what_rfc_4013_forbids_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        saslprep(text)


# Sessions


@pytest.fixture
def talk(tmp_path: Path) -> Conversation:
    """A conversation under TLS, of a user with two keys."""
    made = Conversation(SUBMISSION, tmp_path)
    made.received()
    made.peer.tls = TLS
    made.session.salting = SALTING
    made.session.scram_keys = [verifier(KEY), verifier(OTHER_KEY)]
    made.say(b"EHLO client.example.org")
    return made


def encoded(message: bytes) -> bytes:
    return base64.b64encode(message)


def challenge(answer: bytes) -> bytes:
    """What is in a challenge."""
    assert answer.startswith(b"334 ")
    assert answer.endswith(b"\r\n")
    return base64.b64decode(answer[4:-2], validate=True)


def prove(talk: Conversation, client: ScramClient) -> bytes:
    """Go up to the proof; the answer to it."""
    server_first = challenge(talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first())))
    return talk.say(encoded(client.final(server_first)))


def refused(talk: Conversation) -> bool:
    """Whether the answer, when it comes, is that of a wrong password, and commands are commands again."""
    talk.clock.advance(8)
    return talk.received() == reply.AUTHENTICATION_FAILED.data and talk.say(b"NOOP") == reply.OK.data


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_any_key_of_the_user_logs_in(talk: Conversation, key: str) -> None:
    client = ScramClient(LOGIN, key)
    assert client.trusts(challenge(prove(talk, client)))
    assert talk.session.logins == []
    assert talk.say(b"") == b"235 2.7.0 Authentication successful\r\n"
    assert talk.session.logins == [(LOGIN, "SCRAM")]
    assert talk.say(b"MAIL FROM:<>") == b"250 2.1.0 Ok\r\n"


def test_the_first_message_may_come_behind_an_empty_challenge(talk: Conversation) -> None:
    client = ScramClient(LOGIN, KEY)
    assert talk.say(b"AUTH scram-sha-256") == b"334 \r\n"
    server_first = challenge(talk.say(encoded(client.first())))
    assert client.trusts(challenge(talk.say(encoded(client.final(server_first)))))
    assert talk.say(b"=").startswith(b"235 ")


def test_lines_that_come_early_wait_for_the_lookups(talk: Conversation) -> None:
    client = ScramClient(LOGIN, KEY)
    waiting: list[Deferred[None]] = []

    def later() -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    talk.session.late = later
    talk.send(b"AUTH SCRAM-SHA-256 " + encoded(client.first()) + b"\r\n")
    assert talk.received() == b""
    waiting[0].callback(None)
    server_first = challenge(talk.received())
    talk.send(encoded(client.final(server_first)) + b"\r\n\r\nNOOP\r\n")
    assert talk.received() == b""
    waiting[1].callback(None)
    last, success, noop, _ = talk.received().split(b"\r\n")
    assert client.trusts(challenge(last + b"\r\n"))
    assert (success[:3], noop[:3]) == (b"235", b"250")


def test_every_exchange_has_a_nonce_of_its_own(talk: Conversation) -> None:
    client = ScramClient(LOGIN, KEY)
    seen = set()
    for _ in range(3):
        seen.add(challenge(talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first()))))
        talk.say(b"*")
    assert len(seen) == 3


def test_a_proof_is_good_once(talk: Conversation) -> None:
    client = ScramClient(LOGIN, KEY)
    server_first = challenge(talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first())))
    final = encoded(client.final(server_first))
    talk.say(b"*")
    challenge(talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first())))
    assert talk.say(final) == b""
    assert refused(talk)


def test_a_wrong_key_is_answered_like_a_wrong_password(talk: Conversation) -> None:
    for wait in (1, 2, 4):
        assert prove(talk, ScramClient(LOGIN, WRONG)) == b""
        talk.clock.advance(wait - 0.1)
        assert talk.received() == b""
        talk.clock.advance(0.1)
        assert talk.received() == b"535 5.7.8 Authentication credentials invalid\r\n"
    assert talk.say(b"AUTH SCRAM-SHA-256").startswith(b"421 4.7.0 ")


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"nonsense",
        b"p=tls-exporter,,n=user,r=x",
        b"n,a=other,n=user,r=x",
    ],
)
def test_a_first_message_that_is_none_is_answered_alike(talk: Conversation, first: bytes) -> None:
    assert talk.say(b"AUTH SCRAM-SHA-256 " + (encoded(first) or b"=")) == b""
    assert refused(talk)


def test_a_client_that_mistrusts_the_server_is_not_logged_in(talk: Conversation) -> None:
    challenge(prove(talk, ScramClient(LOGIN, KEY)))
    assert talk.say(b"*") == b"501 5.7.0 Authentication cancelled\r\n"
    assert talk.say(b"MAIL FROM:<>").startswith(b"530 5.7.0 ")
    assert talk.session.logins == []


def test_the_last_response_is_empty(talk: Conversation) -> None:
    challenge(prove(talk, ScramClient(LOGIN, KEY)))
    assert talk.say(encoded(b"more")) == b""
    assert refused(talk)
    assert talk.session.logins == []


@pytest.mark.parametrize("stage", ["first", "final", "last"])
def test_it_can_be_cancelled_at_any_stage(talk: Conversation, stage: str) -> None:
    client = ScramClient(LOGIN, KEY)
    if stage == "first":
        talk.say(b"AUTH SCRAM-SHA-256")
    elif stage == "final":
        talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first()))
    else:
        prove(talk, client)
    assert talk.say(b"*") == b"501 5.7.0 Authentication cancelled\r\n"
    assert client.trusts(challenge(prove(talk, client)))
    assert talk.say(b"").startswith(b"235 ")


@pytest.mark.parametrize("stage", ["first", "final"])
def test_what_cannot_be_looked_up_is_temporary_and_costs_nothing(talk: Conversation, stage: str) -> None:
    client = ScramClient(LOGIN, KEY)

    async def fail() -> None:
        raise ReplyError(reply.AUTHENTICATION_UNAVAILABLE)

    if stage == "first":
        talk.session.late = fail
        answer = talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first()))
    else:
        server_first = challenge(talk.say(b"AUTH SCRAM-SHA-256 " + encoded(client.first())))
        talk.session.late = fail
        answer = talk.say(encoded(client.final(server_first)))
    assert answer == b"454 4.7.0 Temporary authentication failure\r\n"
    assert talk.say(b"NOOP") == reply.OK.data
    assert talk.server.dialogue.authentication.failures == 0


def test_a_lookup_that_takes_too_long_ends_the_exchange(talk: Conversation) -> None:
    talk.session.late = Deferred
    assert talk.say(b"AUTH SCRAM-SHA-256 " + encoded(ScramClient(LOGIN, KEY).first())) == b""
    talk.clock.advance(SUBMISSION.timeouts.store)
    assert talk.received() == reply.TEMPORARY.data
    assert talk.say(b"NOOP") == reply.OK.data


# What is offered, and channel binding


class Connection:
    """AUTH on a connection with these channel bindings."""

    def __init__(self, bindings: Mapping[str, bytes], *, scram_ready: bool = True) -> None:
        self.session = RecordingSession()
        self.session.salting = SALTING
        self.session.scram_keys = [verifier(KEY)]
        self.ready = scram_ready
        self.auth = Authentication(
            SUBMISSION,
            Peer("session", "submission", "192.0.2.1", 1, tls=TLS),
            self.session,
            bindings.get,
            lambda: self.ready,
        )
        self.offered = self.auth.offer()

    async def log_in(self, mechanism: str, client: ScramClient) -> Reply:
        """The whole exchange."""
        answer = await self._come_to(self.auth.begin(f"{mechanism} {encoded(client.first()).decode()}"))
        if answer.code == 334:
            answer = await self._come_to(self.auth.respond(client.final(challenge(answer.data))))
        if answer.code == 334:
            assert client.trusts(challenge(answer.data))
            answer = await self._come_to(self.auth.respond(b""))
        return answer

    async def _come_to(self, outcome: reply.Outcome) -> Reply:
        return outcome if isinstance(outcome, Reply) else await outcome


BOUND = {TLS_EXPORTER: b"exporter's data", TLS_SERVER_END_POINT: b"certificate's hash"}


def test_plus_is_offered_where_the_channel_can_be_bound_to_tls_1_3() -> None:
    assert Connection(BOUND).offered == ("PLAIN", "LOGIN", SCRAM, SCRAM_PLUS)
    assert Connection({TLS_SERVER_END_POINT: b"x"}).offered == ("PLAIN", "LOGIN", SCRAM)
    assert Connection({}).offered == ("PLAIN", "LOGIN", SCRAM)


async def test_scram_is_offered_while_it_may_be_and_a_promise_is_kept() -> None:
    unready = Connection(BOUND, scram_ready=False)
    assert unready.offered == ("PLAIN", "LOGIN")
    unready.ready = True
    assert await unready.log_in(SCRAM, ScramClient(LOGIN, KEY)) is reply.UNKNOWN_MECHANISM
    ready = Connection(BOUND)
    ready.ready = False
    assert await ready.log_in(SCRAM, ScramClient(LOGIN, KEY)) is reply.AUTHENTICATED
    assert ready.auth.offer() == ()


@pytest.mark.parametrize("kind", [TLS_EXPORTER, TLS_SERVER_END_POINT])
async def test_a_bound_channel_logs_in(kind: str) -> None:
    client = ScramClient(LOGIN, KEY, flag=f"p={kind}", binding=BOUND[kind])
    assert await Connection(BOUND).log_in(SCRAM_PLUS, client) is reply.AUTHENTICATED


@pytest.mark.parametrize(
    ("mechanism", "flag", "binding"),
    [
        (SCRAM_PLUS, f"p={TLS_EXPORTER}", b"another channel's"),
        (SCRAM_PLUS, f"p={TLS_SERVER_END_POINT}", BOUND[TLS_EXPORTER]),
        (SCRAM_PLUS, "p=tls-unique", b""),
        (SCRAM_PLUS, "n", b""),
        (SCRAM_PLUS, "y", b""),
        (SCRAM, f"p={TLS_EXPORTER}", BOUND[TLS_EXPORTER]),
        # The client could have bound the channel and was kept from seeing that we can
        (SCRAM, "y", b""),
    ],
)
async def test_a_channel_that_is_not_bound_as_it_should_is_refused(
    mechanism: str, flag: str, binding: bytes
) -> None:
    connection = Connection(BOUND)
    client = ScramClient(LOGIN, KEY, flag=flag, binding=binding)
    with_right_key = await connection.log_in(mechanism, client)
    assert with_right_key is reply.AUTHENTICATION_FAILED
    assert connection.auth.failures == 1
    assert connection.session.logins == []


@pytest.mark.parametrize("flag", ["n", "y"])
async def test_without_a_channel_to_bind_both_flags_log_in(flag: str) -> None:
    assert await Connection({}).log_in(SCRAM, ScramClient(LOGIN, KEY, flag=flag)) is reply.AUTHENTICATED
    assert await Connection({}).log_in(SCRAM_PLUS, ScramClient(LOGIN, KEY)) is reply.UNKNOWN_MECHANISM
