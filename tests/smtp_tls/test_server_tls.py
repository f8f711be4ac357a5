"""TLS with real handshakes on loopback."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent

from relaymail.smtp.tls import CertificateError, ServerTLS, describe_connection, self_signed
from tests.conftest import reactor
from tests.smtp_tls.conftest import NAME, Authority, Issued, connected, context, issue, serving, trusting_all
from tests.support.waiting import until

Write = Callable[..., Path]


def pem(leaf: Issued, authority: Authority) -> bytes:
    """As certbot would join it."""
    return leaf.pem + authority.intermediate.pem + leaf.key_pem()


async def test_a_pem_chain_is_sent_whole(write: Write, authority: Authority) -> None:
    tls = ServerTLS(write("x", pem(authority.issue(), authority)))
    # knowing only the root, the client verifies if the intermediate came with the handshake
    async with serving(tls) as port, connected(port, context(authority.root)) as client:
        assert await client.ask(b"hello") == b"hello"


async def test_pfx_and_der_serve_as_well(write: Write, authority: Authority) -> None:
    leaf = authority.issue()
    archive = pkcs12.serialize_key_and_certificates(
        None, leaf.key, leaf.certificate, [authority.intermediate.certificate], BestAvailableEncryption(b"pw")
    )
    tls = ServerTLS(write("x.pfx", archive), None, "pw")
    async with serving(tls) as port, connected(port, context(authority.root)) as client:
        assert client.certificate == leaf.der
    plain = issue(NAME)
    tls = ServerTLS(write("x.cer", plain.der), write("x.key", plain.key_pem()))
    async with serving(tls) as port, connected(port, context(plain)) as client:
        assert client.certificate == plain.der


async def test_a_self_signed_certificate_verifies_where_it_is_trusted(write: Write) -> None:
    certificate, key = self_signed([NAME])
    settings = ssl.create_default_context(cadata=certificate.decode())
    settings.verify_flags |= ssl.VERIFY_X509_STRICT
    async with serving(ServerTLS(write("x", certificate, key))) as port, connected(port, settings) as client:
        assert await client.ask(b"hello") == b"hello"


async def test_starttls_and_the_facts_of_a_connection(write: Write, authority: Authority) -> None:
    tls = ServerTLS(write("x", pem(authority.issue(), authority)))
    settings = context(authority.root)
    async with serving(tls, implicit=False) as port, connected(port, settings, starttls=True) as client:
        cipher = client.socket.cipher()
        assert cipher is not None
        assert (await client.ask(b"?")).decode() == repr(("TLSv1.3", cipher[0]))
    settings = trusting_all()
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(tls) as port, connected(port, settings) as client:
        assert (await client.ask(b"?")).startswith(b"('TLSv1.2', 'ECDHE-ECDSA-")


async def test_a_clear_connection_has_no_facts(write: Write, authority: Authority) -> None:
    assert describe_connection(object()) is None
    assert describe_connection(None) is None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_refused(write: Write, authority: Authority, version: ssl.TLSVersion) -> None:
    settings = trusting_all()
    settings.set_ciphers("ALL:@SECLEVEL=0")
    settings.minimum_version = settings.maximum_version = version
    async with serving(ServerTLS(write("x", pem(authority.issue(), authority)))) as port:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            async with connected(port, settings):
                pass


@pytest.mark.parametrize(
    "ciphers", ["ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "DHE-RSA-AES256-GCM-SHA384"]
)
async def test_tls_1_2_without_forward_secrecy_or_aead_is_refused(
    write: Write, authority: Authority, ciphers: str
) -> None:
    key = None if "ECDSA" in ciphers else rsa.generate_private_key(65537, 2048)
    settings = trusting_all()
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    settings.set_ciphers(ciphers)
    async with serving(ServerTLS(write("x", pem(authority.issue(key=key), authority)))) as port:
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            async with connected(port, settings):
                pass


async def test_the_order_of_ciphers_is_the_servers(write: Write, authority: Authority) -> None:
    settings = trusting_all()
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    settings.set_ciphers(
        "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    )
    tls = ServerTLS(write("x", pem(authority.issue(), authority)))
    async with serving(tls) as port, connected(port, settings) as client:
        cipher = client.socket.cipher()
        assert cipher is not None
        assert cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"


async def test_sessions_are_resumed_with_tickets(write: Write, authority: Authority) -> None:
    settings = trusting_all()
    settings.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(ServerTLS(write("x", pem(authority.issue(), authority)))) as port:
        async with connected(port, settings) as client:
            session = client.socket.session
            assert not client.socket.session_reused
        async with connected(port, settings, session=session) as client:
            assert client.socket.session_reused
            assert await client.ask(b"hello") == b"hello"


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> None:
    """Turn by turn, in memory, until neither has anything to say."""
    quiet = 0
    while quiet < 2:
        quiet += 1
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                other.bio_write(one.bio_read(65536))
                quiet = 0
            except SSL.WantReadError:
                pass


def test_a_client_cannot_renegotiate(write: Write, authority: Authority) -> None:
    tls = ServerTLS(write("x", pem(authority.issue(), authority)))
    settings = SSL.Context(SSL.TLS_CLIENT_METHOD)
    settings.set_max_proto_version(SSL.TLS1_2_VERSION)
    client = SSL.Connection(settings, None)
    client.set_connect_state()
    server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
    server.set_accept_state()
    shake_hands(client, server)
    assert client.get_cipher_name()
    assert client.renegotiate()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    server.bio_write(client.bio_read(65536))
    with pytest.raises(SSL.WantReadError):
        server.recv(10)
    client.bio_write(server.bio_read(65536))
    with pytest.raises(SSL.Error, match="no renegotiation"):
        client.do_handshake()


async def test_a_renewed_certificate_is_used_and_sessions_live_on(write: Write, authority: Authority) -> None:
    old, new = authority.issue(), authority.issue()
    tls = ServerTLS(write("x", pem(old, authority)))
    async with serving(tls) as port, connected(port, context(authority.root)) as first:
        assert not await tls.poll_once()
        write("x", pem(new, authority))
        assert await tls.poll_once()
        assert not await tls.poll_once()
        async with connected(port, context(authority.root)) as second:
            assert (first.certificate, second.certificate) == (old.der, new.der)
            assert await first.ask(b"still here") == b"still here"
            assert await second.ask(b"hello") == b"hello"
    assert tls.facts.thumbprint == tls.facts.thumbprint.upper()
    assert tls.error is None


async def test_swapped_symbolic_links_are_followed(tmp_path: Path, authority: Authority) -> None:
    leaves = [authority.issue(), authority.issue()]
    for number, leaf in enumerate(leaves):
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        (folder / "tls.crt").write_bytes(leaf.pem + authority.intermediate.pem)
        (folder / "tls.key").write_bytes(leaf.key_pem())
    # as Kubernetes mounts secrets: files are links through ..data, which is swapped
    (tmp_path / "..data").symlink_to("..0")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    tls = ServerTLS(tmp_path / "tls.crt", tmp_path / "tls.key")
    (tmp_path / "..new").symlink_to("..1")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    assert await tls.poll_once()
    async with serving(tls) as port, connected(port, context(authority.root)) as client:
        assert client.certificate == leaves[1].der


async def test_certificate_and_key_may_change_one_after_the_other(
    write: Write, authority: Authority, errors: list[LogEvent]
) -> None:
    old, new = authority.issue(), authority.issue()
    tls = ServerTLS(write("crt", old.pem), write("key", old.key_pem()))
    before = tls.facts
    write("crt", new.pem)
    assert not await tls.poll_once()
    assert tls.facts == before
    write("key", new.key_pem())
    assert await tls.poll_once()
    assert tls.facts != before
    assert tls.error is None
    assert len(errors) == 1


async def test_a_broken_file_keeps_the_old_certificate_and_is_told_once(
    write: Write, authority: Authority, errors: list[LogEvent]
) -> None:
    leaf = authority.issue()
    path = write("x", pem(leaf, authority))
    tls = ServerTLS(path)
    async with serving(tls) as port:
        write("x", b"-----BEGIN nonsense")
        for _ in range(3):
            assert not await tls.poll_once()
        assert len(errors) == 1
        assert str(path) in formatEvent(errors[0])
        path.unlink()
        for _ in range(3):
            assert not await tls.poll_once()
        assert len(errors) == 2
        assert "does not exist" in formatEvent(errors[1])
        assert "does not exist" in (tls.error or "")
        async with connected(port, context(authority.root)) as client:
            assert client.certificate == leaf.der
    write("x", pem(leaf, authority))
    assert not await tls.poll_once()
    assert tls.error is None
    assert len(errors) == 2


def test_a_reload_by_hand_tells_whether_there_was_another(write: Write, authority: Authority) -> None:
    tls = ServerTLS(write("x", pem(authority.issue(), authority)))
    assert not tls.reload()
    write("x", pem(authority.issue(), authority))
    assert tls.reload()
    write("x", b"")
    assert not tls.reload()
    assert tls.error is not None
    assert "is empty" in tls.error


async def test_it_looks_by_itself_until_stopped(write: Write, authority: Authority) -> None:
    old, new = authority.issue(), authority.issue()
    tls = ServerTLS(write("x", pem(old, authority)))
    clock = Clock()
    tls.start(clock, interval=2.0)
    tls.start(clock, interval=2.0)
    before = tls.facts
    write("x", pem(new, authority))
    clock.advance(1.9)
    assert tls.facts == before
    clock.advance(0.2)
    await until(reactor, lambda: tls.facts != before)
    await until(reactor, lambda: bool(clock.getDelayedCalls()))
    assert len(clock.getDelayedCalls()) == 1
    tls.stop()
    tls.stop()
    assert not clock.getDelayedCalls()


def test_what_openssl_refuses_is_an_error_of_the_certificate(write: Write) -> None:
    weak = issue(NAME, key=rsa.generate_private_key(65537, 1024))
    with pytest.raises(CertificateError, match="too small"):
        ServerTLS(write("x", weak.pem, weak.key_pem()))


def test_an_expired_certificate_serves_with_a_warning(
    write: Write, authority: Authority, errors: list[LogEvent]
) -> None:
    tls = ServerTLS(write("x", pem(authority.issue(ends=timedelta(days=-1)), authority)))
    assert tls.facts.expired()
    assert "has expired" in formatEvent(errors[0])
