"""TLS with the next host: what is asked for, what is got, and how it fails."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet.defer import Deferred

from relaymail.smtp.client import TLSARecord, TLSRequirement, TrustRoots
from relaymail.smtp.client_dane import matches_leaf, problem_of_chain
from tests.conftest import reactor
from tests.smtp_client.sending import BODY, mail, open_to, refusal_of
from tests.smtp_tls.conftest import Authority, Issued, issue
from tests.support import rude_host
from tests.support.rude_host import (
    EXPIRED,
    NAME,
    FakeTime,
    RudeHost,
    Script,
    ServerSide,
    Session,
    new_authority,
    polite,
    tls_of,
)
from tests.support.waiting import pause, until


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority()


@pytest.fixture(scope="module")
def roots(authority: Authority) -> TrustRoots:
    return TrustRoots([authority.root.certificate])


def offering(tls: ServerSide) -> Script:
    return partial(polite, tls=tls)


def record(usage: int, selector: int, matching: int, issued: Issued) -> TLSARecord:
    certificate = issued.certificate
    octets = certificate.public_bytes(Encoding.DER)
    if selector == 1:
        octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = {
        0: lambda o: o,
        1: lambda o: hashlib.sha256(o).digest(),
        2: lambda o: hashlib.sha512(o).digest(),
    }
    return TLSARecord(usage, selector, matching, digest[matching](octets))


class TestOpportunistic:
    @pytest.mark.parametrize(
        ("name", "options"),
        [(NAME, {}), ("other.example.test", {}), (NAME, {"ends": EXPIRED})],
        ids=["good", "wrong name", "expired"],
    )
    async def test_takes_any_certificate(
        self, authority: Authority, name: str, options: dict[str, Any]
    ) -> None:
        tls = tls_of(authority, name, **options)
        async with RudeHost(reactor, offering(tls)) as host:
            connection = await open_to(host)
            assert connection.tls is not None
            assert connection.tls.version == "TLSv1.3"
            assert connection.tls.cipher.startswith("TLS_")
            assert connection.tls.verified_by == "nothing"
            (outcome,) = await connection.send(mail(), BODY)
            assert outcome.verdict == "delivered"
            # Nothing of what was offered in clear counts, and STARTTLS is not said twice
            assert [line.split()[0] for line in host.session.commands] == (
                ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"]
            )
            assert tls.server_names == [NAME]
            connection.quit()
            await until(reactor, lambda: host.session.gone)

    async def test_takes_a_certificate_with_a_short_key(self) -> None:
        weak = issue(NAME, key=rsa.generate_private_key(65537, 1024))
        async with RudeHost(reactor, offering(ServerSide(weak))) as host:
            assert (await open_to(host)).tls is not None

    async def test_takes_tls_1_2(self, authority: Authority) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, newest=SSL.TLS1_2_VERSION))) as host:
            facts = (await open_to(host)).tls
            assert facts is not None
            assert facts.version == "TLSv1.2"

    @pytest.mark.parametrize("newest", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
    async def test_does_not_take_less_and_says_so(self, authority: Authority, newest: int) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, newest=newest))) as host:
            failure = await refusal_of(host)
            assert failure.tls_failed
            assert (failure.phase, failure.tls_problem, failure.status) == ("starttls", "handshake", "4.7.5")
            assert not failure.permanent
            # The caller's next try
            assert (await open_to(host, TLSRequirement.none())).tls is None

    async def test_none_is_none(self, authority: Authority) -> None:
        async with RudeHost(reactor, offering(tls_of(authority))) as host:
            connection = await open_to(host, TLSRequirement.none())
            assert connection.tls is None
            assert host.session.commands == ["EHLO relay.example.org"]

    async def test_asks_for_no_name_where_there_is_none(self, authority: Authority) -> None:
        tls = tls_of(authority)
        async with RudeHost(reactor, offering(tls)) as host:
            await open_to(host, name="127.0.0.1")
            assert tls.server_names == [None]

    async def test_replies_injected_behind_starttls_are_a_failure_of_tls(self) -> None:
        async with RudeHost(reactor, rude_host.injects_behind_starttls) as host:
            failure = await refusal_of(host)
            assert (failure.phase, failure.tls_problem, failure.status) == ("starttls", "refused", "4.7.0")
            await until(reactor, lambda: host.session.gone)

    async def test_a_piece_of_a_reply_behind_starttls_is_one_too(self) -> None:
        async def inject(session: Session, line: str) -> None:
            session.raw(b"220 2.0.0 go ahead\r\n2")

        script = partial(polite, extensions=("STARTTLS",), answers={"STARTTLS": inject})
        async with RudeHost(reactor, script) as host:
            assert (await refusal_of(host)).tls_problem == "refused"

    async def test_a_host_that_goes_away_instead_of_shaking_hands(self) -> None:
        async def go(session: Session, line: str) -> None:
            session.say("220 2.0.0 go ahead")
            session.lose()

        script = partial(polite, extensions=("STARTTLS",), answers={"STARTTLS": go})
        async with RudeHost(reactor, script) as host:
            failure = await refusal_of(host)
            assert (failure.tls_problem, failure.status) == ("handshake", "4.7.5")

    async def test_a_host_that_speaks_no_tls_after_all(self) -> None:
        script = partial(
            polite, extensions=("STARTTLS",), answers={"STARTTLS": ["220 go ahead", "220 what?"]}
        )
        async with RudeHost(reactor, script) as host:
            assert (await refusal_of(host)).tls_failed
        late = partial(polite, extensions=("STARTTLS",), answers={"STARTTLS": _answers_a_hello_in_clear})
        async with RudeHost(reactor, late) as host:
            assert (await refusal_of(host)).tls_problem == "handshake"

    async def test_a_host_that_goes_away_behind_the_handshake(self, authority: Authority) -> None:
        async def only_in_clear(session: Session, line: str) -> None:
            if session.tls:
                session.abort()
                raise rude_host.Gone
            session.say(*rude_host.listed(250, NAME, "STARTTLS"))

        script = partial(polite, tls=tls_of(authority), answers={"EHLO": only_in_clear})
        async with RudeHost(reactor, script) as host:
            failure = await refusal_of(host)
            assert (failure.phase, failure.tls_problem) == ("ehlo", "handshake")

    async def test_421_to_starttls(self) -> None:
        script = partial(polite, extensions=("STARTTLS",), answers={"STARTTLS": "421 4.3.2 bye"})
        async with RudeHost(reactor, script) as host:
            failure = await refusal_of(host)
            assert (failure.phase, failure.tls_problem) == ("starttls", "refused")

    async def test_a_handshake_that_does_not_come_is_not_waited_for(self) -> None:
        async def never(session: Session, line: str) -> None:
            session.say("220 2.0.0 go ahead")
            await session.end()

        script = partial(polite, extensions=("STARTTLS",), answers={"STARTTLS": never})
        async with RudeHost(reactor, script) as host:
            time = FakeTime(reactor)
            failing = Deferred.fromCoroutine(refusal_of(host, reactor=time))
            await until(reactor, lambda: host.sessions != [] and host.session.has_input)
            time.advance(119)
            assert not failing.called
            time.advance(2)
            failure = await failing
            assert (failure.phase, failure.tls_problem) == ("starttls", "handshake")

    async def test_a_large_message_waits_for_the_host(self, authority: Authority) -> None:
        produced = 0
        go_on: Deferred[None] = Deferred()

        async def parts() -> AsyncIterator[bytes]:
            nonlocal produced
            for _ in range(200):
                produced += 1
                yield b"x" * 254_000 + b"\r\n"

        async def data(session: Session, line: str) -> None:
            session.transport.pauseProducing()
            session.say("354 go ahead")
            await go_on
            session.transport.resumeProducing()
            await session.octets(1_000_000)
            session.abort()

        script = partial(polite, tls=tls_of(authority), answers={"DATA": data})
        async with RudeHost(reactor, script) as host:
            connection = await open_to(host)
            sending = Deferred.fromCoroutine(connection.send(mail(), parts()))
            await until(reactor, lambda: produced > 0)
            await pause(reactor, 0.1)
            assert produced < 150
            go_on.callback(None)
            (outcome,) = await sending
            assert (outcome.verdict, outcome.phase, outcome.in_doubt) == ("deferred", "transfer", False)
            assert not connection.usable


async def _answers_a_hello_in_clear(session: Session, line: str) -> None:
    session.say("220 2.0.0 go ahead")
    await session.octets(1)
    session.say("500 what?")


class TestRequired:
    @pytest.mark.parametrize(
        "requirement",
        [TLSRequirement.encrypted(), TLSRequirement.dane([], [])],
        ids=["encrypted", "dane without records"],
    )
    async def test_is_never_done_without(self, requirement: TLSRequirement) -> None:
        assert requirement.forbids_clear
        async with RudeHost(reactor, polite) as host:
            failure = await refusal_of(host, requirement)
            assert (failure.phase, failure.tls_problem, failure.status) == (
                "starttls",
                "not-offered",
                "4.7.4",
            )
            assert not failure.permanent
            await until(reactor, lambda: host.session.gone)
            assert not any(line.startswith("MAIL") for line in host.session.commands)
        async with RudeHost(reactor, rude_host.knows_no_ehlo) as host:
            assert (await refusal_of(host, requirement)).tls_problem == "not-offered"

    async def test_encrypted_takes_any_certificate(self, authority: Authority) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, "other.example.test"))) as host:
            facts = (await open_to(host, TLSRequirement.encrypted())).tls
            assert facts is not None
            assert facts.verified_by == "nothing"


class TestVerified:
    async def test_takes_a_certificate_of_the_roots_for_the_name(
        self, authority: Authority, roots: TrustRoots
    ) -> None:
        async with RudeHost(reactor, offering(tls_of(authority))) as host:
            facts = (await open_to(host, TLSRequirement.verified([NAME], roots))).tls
            assert facts is not None
            assert facts.verified_by == "roots"

    async def test_takes_a_wildcard_and_an_address(self, authority: Authority, roots: TrustRoots) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, "*.example.test"))) as host:
            assert (await open_to(host, TLSRequirement.verified([NAME], roots))).tls
            failure = await refusal_of(host, TLSRequirement.verified(["a.mx.example.test"], roots))
            assert failure.tls_problem == "certificate"

    @pytest.mark.parametrize(
        ("name", "options", "why"),
        [
            ("other.example.test", {}, f"not for {NAME}"),
            (NAME, {"ends": EXPIRED}, "expired"),
        ],
    )
    async def test_takes_no_other(
        self, authority: Authority, roots: TrustRoots, name: str, options: dict[str, Any], why: str
    ) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, name, **options))) as host:
            failure = await refusal_of(host, TLSRequirement.verified([NAME], roots))
            assert (failure.phase, failure.tls_problem, failure.status) == (
                "starttls",
                "certificate",
                "4.7.5",
            )
            assert why in failure.why
            assert not failure.permanent
            await until(reactor, lambda: host.session.gone)
            # Nothing was said under this TLS
            assert [line.split()[0] for line in host.session.commands] == ["EHLO", "STARTTLS"]

    async def test_takes_none_of_another_authority(self, authority: Authority) -> None:
        async with RudeHost(reactor, offering(tls_of(new_authority()))) as host:
            strangers = TLSRequirement.verified([NAME], TrustRoots([authority.root.certificate]))
            failure = await refusal_of(host, strangers)
            assert failure.tls_problem == "certificate"
            assert "not trusted" in failure.why

    async def test_takes_none_that_signed_itself(self, roots: TrustRoots) -> None:
        async with RudeHost(reactor, offering(ServerSide(issue(NAME)))) as host:
            failure = await refusal_of(host, TLSRequirement.verified([NAME], roots))
            assert failure.tls_problem == "certificate"

    async def test_needs_the_intermediates(self, authority: Authority, roots: TrustRoots) -> None:
        async with RudeHost(reactor, offering(ServerSide(authority.issue(NAME)))) as host:
            failure = await refusal_of(host, TLSRequirement.verified([NAME], roots))
            assert failure.tls_problem == "certificate"

    async def test_takes_none_that_is_for_clients_only(self, authority: Authority, roots: TrustRoots) -> None:
        client = _for_clients_only(authority.intermediate)
        async with RudeHost(reactor, offering(ServerSide(client, authority.intermediate))) as host:
            failure = await refusal_of(host, TLSRequirement.verified([NAME], roots))
            assert failure.tls_problem == "certificate"

    async def test_tells_a_handshake_from_a_certificate(
        self, authority: Authority, roots: TrustRoots
    ) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, newest=SSL.TLS1_VERSION))) as host:
            failure = await refusal_of(host, TLSRequirement.verified([NAME], roots))
            assert failure.tls_problem == "handshake"

    async def test_over_implicit_tls(self, authority: Authority, roots: TrustRoots) -> None:
        script = partial(polite, tls=tls_of(authority), implicit=True)
        async with RudeHost(reactor, script) as host:
            connection = await open_to(host, TLSRequirement.verified([NAME], roots).implicitly())
            assert connection.tls is not None
            assert connection.tls.verified_by == "roots"
            (outcome,) = await connection.send(mail(), BODY)
            assert outcome.verdict == "delivered"
            assert host.session.commands[0] == "EHLO relay.example.org"

    async def test_implicit_tls_with_a_host_that_has_none(self, roots: TrustRoots) -> None:
        async with RudeHost(reactor, polite) as host:
            failure = await refusal_of(host, TLSRequirement.opportunistic().implicitly())
            assert failure.tls_problem == "handshake"

    async def test_the_system_has_roots(self) -> None:
        try:
            system = TrustRoots.system()
        except FileNotFoundError:
            pytest.skip("no certificates of authorities here")
        async with RudeHost(reactor, offering(tls_of(new_authority()))) as host:
            failure = await refusal_of(host, TLSRequirement.verified([NAME], system))
            assert failure.tls_problem == "certificate"

    def test_roots_from_a_file(self, authority: Authority) -> None:
        TrustRoots.from_pem(authority.root.pem + authority.intermediate.pem)
        with pytest.raises(ValueError):
            TrustRoots.from_pem(b"no certificate")


class TestDANE:
    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching", [0, 1, 2])
    async def test_ee_names_the_certificate_itself(self, selector: int, matching: int) -> None:
        # No name, no issuer, no date
        leaf = issue("other.example.test", ends=EXPIRED)
        async with RudeHost(reactor, offering(ServerSide(leaf))) as host:
            wanted = TLSRequirement.dane([record(3, selector, matching, leaf)], [NAME])
            facts = (await open_to(host, wanted)).tls
            assert facts is not None
            assert facts.verified_by == "dane-ee"

    async def test_ee_takes_no_other_certificate(self) -> None:
        async with RudeHost(reactor, offering(ServerSide(issue(NAME)))) as host:
            wanted = TLSRequirement.dane([record(3, 1, 1, issue(NAME))], [NAME])
            failure = await refusal_of(host, wanted)
            assert (failure.tls_problem, failure.status) == ("certificate", "4.7.5")
            assert "TLSA" in failure.why

    async def test_one_record_of_several_is_enough(self) -> None:
        leaf = issue(NAME)
        async with RudeHost(reactor, offering(ServerSide(leaf))) as host:
            records = [record(3, 1, 1, issue(NAME)), record(2, 0, 1, issue(NAME)), record(3, 1, 2, leaf)]
            assert (await open_to(host, TLSRequirement.dane(records, [NAME]))).tls

    @pytest.mark.parametrize("selector", [0, 1])
    @pytest.mark.parametrize("matching", [0, 1, 2])
    @pytest.mark.parametrize("anchor", ["root", "intermediate"])
    async def test_ta_names_an_authority(
        self, authority: Authority, selector: int, matching: int, anchor: str
    ) -> None:
        tls = ServerSide(authority.issue(NAME), authority.intermediate, authority.root)
        async with RudeHost(reactor, offering(tls)) as host:
            wanted = TLSRequirement.dane(
                [record(2, selector, matching, getattr(authority, anchor))], ["other.example.test", NAME]
            )
            facts = (await open_to(host, wanted)).tls
            assert facts is not None
            assert facts.verified_by == "dane-ta"
            # RFC 7672 8.1: the base domain of the records
            assert tls.server_names == ["other.example.test"]

    async def test_ta_may_stand_in_the_record_alone(self, authority: Authority) -> None:
        async with RudeHost(reactor, offering(tls_of(authority))) as host:
            whole = TLSRequirement.dane([record(2, 0, 0, authority.root)], [NAME])
            assert (await open_to(host, whole)).tls
            digest = TLSRequirement.dane([record(2, 0, 1, authority.root)], [NAME])
            assert (await refusal_of(host, digest)).tls_problem == "certificate"

    @pytest.mark.parametrize(
        ("name", "options", "why"),
        [("other.example.test", {}, f"not for {NAME}"), (NAME, {"ends": EXPIRED}, "expired")],
    )
    async def test_ta_checks_names_and_dates(
        self, authority: Authority, name: str, options: dict[str, Any], why: str
    ) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, name, **options))) as host:
            wanted = TLSRequirement.dane([record(2, 1, 1, authority.intermediate)], [NAME])
            failure = await refusal_of(host, wanted)
            assert failure.tls_problem == "certificate"
            assert why in failure.why

    async def test_ta_does_not_name_the_certificate_itself(self) -> None:
        leaf = issue(NAME)
        async with RudeHost(reactor, offering(ServerSide(leaf))) as host:
            wanted = TLSRequirement.dane([record(2, 1, 1, leaf)], [NAME])
            assert (await refusal_of(host, wanted)).tls_problem == "certificate"

    async def test_ta_that_did_not_sign_the_certificate(self, authority: Authority) -> None:
        stranger = new_authority()
        tls = ServerSide(stranger.issue(NAME), stranger.intermediate, authority.intermediate)
        async with RudeHost(reactor, offering(tls)) as host:
            wanted = TLSRequirement.dane([record(2, 1, 1, authority.intermediate)], [NAME])
            assert (await refusal_of(host, wanted)).tls_problem == "certificate"

    async def test_ta_takes_none_that_is_for_clients_only(self, authority: Authority) -> None:
        client = _for_clients_only(authority.intermediate)
        async with RudeHost(reactor, offering(ServerSide(client, authority.intermediate))) as host:
            wanted = TLSRequirement.dane([record(2, 1, 1, authority.intermediate)], [NAME])
            failure = await refusal_of(host, wanted)
            assert "not one for servers" in failure.why

    @pytest.mark.parametrize(
        "unusable",
        [
            TLSARecord(0, 1, 1, b"x" * 32),
            TLSARecord(1, 1, 1, b"x" * 32),
            TLSARecord(3, 2, 1, b"x" * 32),
            TLSARecord(3, 1, 3, b"x" * 32),
            TLSARecord(3, 1, 1, b"x" * 31),
            TLSARecord(3, 1, 2, b"x" * 32),
            TLSARecord(2, 0, 0, b""),
        ],
    )
    async def test_without_a_usable_record_any_certificate_does(
        self, authority: Authority, unusable: TLSARecord
    ) -> None:
        async with RudeHost(reactor, offering(tls_of(authority, "other.example.test"))) as host:
            facts = (await open_to(host, TLSRequirement.dane([unusable], [NAME]))).tls
            assert facts is not None
            assert facts.verified_by == "nothing"
            # But one that is usable decides
            wanted = TLSRequirement.dane([unusable, record(3, 1, 1, issue(NAME))], [NAME])
            assert (await refusal_of(host, wanted)).tls_problem == "certificate"

    def test_a_chain_that_is_a_ring_ends(self, authority: Authority) -> None:
        chain = [authority.issue(NAME).certificate, *[authority.intermediate.certificate] * 50]
        assert problem_of_chain([record(2, 0, 1, authority.root)], chain) is not None
        assert problem_of_chain([record(2, 0, 1, authority.intermediate)], chain) is None
        damaged = TLSARecord(2, 0, 0, b"no certificate")
        assert problem_of_chain([damaged], chain) is not None
        assert not matches_leaf([damaged], chain[0])


def _for_clients_only(issuer: Issued) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    good = issue(NAME, issuer, key=key).certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(good.subject)
        .issuer_name(good.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(good.not_valid_before_utc)
        .not_valid_after(good.not_valid_after_utc)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    )
    for extension in good.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return Issued(builder.sign(issuer.key, SHA256()), key)
